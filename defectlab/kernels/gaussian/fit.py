"""One Gaussian per patch position: PaDiM's statistics (arXiv 2011.08785).

Three forms of the same covariance S of C features from N images. `inverse` is plain anomalib's. `factor` is the lower
Cholesky factor of S, whose leading block is the factor of the first features alone: one fit on all channels in the
order of a permutation serves every smaller `n_features` (`fit_factor`, and `prefix_distances` in `distance.py`).
`low_rank` keeps the centred rows A (N, C) and the factor of the N x N matrix l(N-1) I + A A.T, l the regularisation:
for N below 0.62 C it is smaller and cheaper (Woodbury's identity).
"""

import logging
from dataclasses import dataclass

import torch

from defectlab.kernels.linalg import batched_cholesky, gram, over_chunks
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

DEFAULT_BUDGET = 256 * 2**20  # bytes of working memory beside the statistics themselves
FIT_CHUNK = 32  # positions whose rows fit a core's second-level cache; measured
REGULARISATION = 0.01  # on the diagonal, as in the paper
STABILISATION = 1e-5  # added by anomalib before it inverts


@dataclass(frozen=True)
class Gaussian:
    """Mean (C, P) and one form of the covariance of P positions, float32.

    Attributes:
        mean: (C, P).
        factor: Lower Cholesky factors, (P, C, C) of the covariance, or with `rows` (P, N, N).
        rows: Centred rows (P, N, C) of the low-rank form.
        inverse: Inverse covariance (P, C, C), anomalib's form.
    """

    mean: torch.Tensor
    factor: torch.Tensor | None = None
    rows: torch.Tensor | None = None
    inverse: torch.Tensor | None = None

    @property
    def form(self) -> str:
        """Form of the fit: `factor`, `low_rank` or `inverse`."""
        if self.inverse is not None:
            return "inverse"
        return "factor" if self.rows is None else "low_rank"

    def to_inverse(self) -> torch.Tensor:
        """Return the inverse covariance (P, C, C), float32: anomalib's form."""
        if self.inverse is not None:
            return self.inverse
        assert self.factor is not None
        if self.rows is None:
            return torch.cholesky_inverse(self.factor)
        positions, _images, channels = self.rows.shape
        inverse = self.rows.new_empty((positions, channels, channels))

        def invert(part: slice) -> None:
            assert self.rows is not None
            assert self.factor is not None
            centred = self.rows[part].double()  # the difference from the identity is small in the directions of data
            half = torch.linalg.solve_triangular(self.factor[part].double(), centred, upper=False)  # (p, N, C)
            found = torch.bmm(half.mT, half).neg_()
            found.diagonal(dim1=1, dim2=2).add_(1)
            inverse[part] = found.div_(REGULARISATION + STABILISATION).float()

        over_chunks(invert, positions, FIT_CHUNK, self.rows.device)
        return inverse


def low_rank_is_smaller(images: int, channels: int) -> bool:
    """Return whether the rows and N x N factor of the low-rank form have fewer numbers than the C x C factor."""
    return images * (images + channels) < channels**2


def fit_cheapest(rows: torch.Tensor, *, memory_budget: int | None = None) -> Gaussian:
    """Fit in the cheapest form: low-rank where images are few compared with features, else the factor.

    `rows` is (N, C, P). Where rounding drowns the regularisation the form is anomalib's inverse, with a warning.

    Raises:
        InputError: As `fit_factor`.
    """
    _check(rows)
    images, channels, _ = rows.shape
    fit = fit_low_rank if low_rank_is_smaller(images, channels) else fit_factor
    try:
        return fit(rows, memory_budget=memory_budget)
    except NotPositiveError:
        mean, inverse = fit_gaussian(rows, memory_budget=memory_budget)
        return Gaussian(mean, inverse=inverse)


class NotPositiveError(ArithmeticError):
    """Raised where float32 rounding makes a covariance indefinite: features too large for the regularisation."""


@torch.no_grad()
def fit_factor(rows: torch.Tensor, *, memory_budget: int | None = None) -> Gaussian:
    """Fit mean and Cholesky factor of the covariance of each position.

    `rows` is (N, C, P): N images, C features, P positions. The covariance is divided by N - 1 and has 0.01 + 1e-5
    added to its diagonal, as anomalib's. For every c <= C the leading block `factor[:, :c, :c]` and `mean[:c]` are the
    fit on the first c features: with channels in the order of one permutation this serves every smaller `n_features`.

    Raises:
        InputError: With fewer than 2 images, or if the rows hold NaN or infinity.
        NotPositiveError: Rounding drowns the regularisation; `fit_cheapest` then takes anomalib's form.
    """
    mean, (n, channels, positions) = _mean(rows), rows.shape
    factor = rows.new_empty((positions, channels, channels), dtype=torch.float32)
    failed = torch.zeros(positions, dtype=torch.bool, device=rows.device)

    def work(part: slice) -> None:
        factor[part], failed[part] = batched_cholesky(_covariance(rows, mean, part))

    chunk = chunk_size(memory_budget, FIT_CHUNK, channels * (n + 3 * channels))
    over_chunks(work, positions, chunk, rows.device)
    _refuse(failed)
    return Gaussian(mean, factor=factor)


@torch.no_grad()
def fit_low_rank(rows: torch.Tensor, *, memory_budget: int | None = None) -> Gaussian:
    """Fit as `fit_factor`, in the low-rank form: about N^2 (C + N) operations a position instead of C^2 (N + C).

    Raises:
        InputError: With fewer than 2 images, or if the rows hold NaN or infinity.
        NotPositiveError: Rounding drowns the regularisation.
    """
    mean, (n, channels, positions) = _mean(rows), rows.shape
    centred = rows.new_empty((positions, n, channels), dtype=torch.float32)
    factor = rows.new_empty((positions, n, n), dtype=torch.float32)
    failed = torch.zeros(positions, dtype=torch.bool, device=rows.device)

    def work(part: slice) -> None:
        centred[part] = _centred(rows, mean, part)
        products = gram(centred[part].mT)  # (p, N, N)
        products.diagonal(dim1=1, dim2=2).add_((REGULARISATION + STABILISATION) * (n - 1))
        factor[part], failed[part] = batched_cholesky(products)

    chunk = chunk_size(memory_budget, FIT_CHUNK // 4, n * (channels + 3 * n))
    over_chunks(work, positions, chunk, rows.device)
    _refuse(failed)
    return Gaussian(mean, factor=factor, rows=centred)


@torch.no_grad()
def fit_gaussian(rows: torch.Tensor, *, memory_budget: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit a Gaussian to the rows of each position, in anomalib's form.

    `rows` is (N, C, P): N images, C features, P positions. Returns the mean (C, P) and the inverse covariance
    (P, C, C), float32. Equal to anomalib's MultiVariateGaussian up to float32 rounding. Positions are worked in chunks
    under `memory_budget`.

    Raises:
        InputError: With fewer than 2 images, or if the rows hold NaN or infinity.
    """
    mean, (n, channels, positions) = _mean(rows), rows.shape
    inverse = rows.new_empty((positions, channels, channels), dtype=torch.float32)
    failed = torch.zeros(positions, dtype=torch.bool, device=rows.device)

    def work(part: slice) -> None:
        covariance = _covariance(rows, mean, part)
        factor, bad = batched_cholesky(covariance)
        failed[part] = bad
        if bool(bad.any()):
            inverse[part] = torch.linalg.inv(covariance)
        else:
            inverse[part] = torch.cholesky_inverse(factor)

    chunk = chunk_size(memory_budget, FIT_CHUNK, channels * (n + 3 * channels))
    over_chunks(work, positions, chunk, rows.device)
    if bool(failed.any()):
        logger.warning(
            "%d of %d positions: the features are so large (or so alike) that rounding drowns the regularisation; "
            "inverted by LU, as anomalib does. Distances there carry few digits.",
            int(failed.sum()),
            positions,
        )
    return mean, inverse


def _centred(rows: torch.Tensor, mean: torch.Tensor, part: slice) -> torch.Tensor:
    return (rows[:, :, part].float() - mean[:, part]).permute(2, 0, 1).contiguous()  # (N, C, p) -> (p, N, C)


def _covariance(rows: torch.Tensor, mean: torch.Tensor, part: slice) -> torch.Tensor:
    """Return the regularised covariance (p, C, C) at the positions of the slice `part`."""
    covariance = gram(_centred(rows, mean, part)).div_(len(rows) - 1)
    # Two additions, as plain makes them: one of their sum rounds otherwise.
    covariance.diagonal(dim1=1, dim2=2).add_(REGULARISATION).add_(STABILISATION)
    return covariance


def _check(rows: torch.Tensor) -> None:
    if rows.ndim != 3:
        raise InputError(f"fit_gaussian needs rows of shape (images, features, positions), got {tuple(rows.shape)}.")
    if len(rows) < 2:
        raise InputError(
            f"PaDiM needs at least 2 training images to estimate a covariance, got {len(rows)}. Add good images."
        )


def _mean(rows: torch.Tensor) -> torch.Tensor:
    _check(rows)
    mean = rows.mean(0, dtype=torch.float32)
    if not bool(torch.isfinite(mean).all()):
        raise InputError(
            "The training features hold NaN or infinity. Check the backbone's weights and the images' normalisation."
        )
    return mean


def _refuse(failed: torch.Tensor) -> None:
    if bool(failed.any()):
        raise NotPositiveError(f"{int(failed.sum())} of {len(failed)} covariances are not positive definite in float32")


def chunk_size(memory_budget: int | None, most: int, numbers: int) -> int:
    """Return the positions per chunk: at most `most`, each using `numbers` float32 within the memory budget."""
    budget = DEFAULT_BUDGET if memory_budget is None else memory_budget
    return max(1, min(most, budget // (4 * max(1, numbers))))
