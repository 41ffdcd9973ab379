"""One Gaussian per patch position: PaDiM's statistics and its Mahalanobis distance (arXiv 2011.08785)."""

import logging

import torch

from defectlab.errors import InputError

logger = logging.getLogger(__name__)

DEFAULT_BUDGET = 256 * 2**20  # bytes of working memory beside the statistics themselves
REGULARISATION = 0.01  # on the diagonal, as in the paper
STABILISATION = 1e-5  # added by anomalib before it inverts


@torch.no_grad()
def fit_gaussian(rows: torch.Tensor, *, memory_budget: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit a Gaussian to the rows of each position.

    `rows` is (N, C, P): N images, C features, P positions. Returns the mean (C, P) and the inverse covariance
    (P, C, C), float32; the covariance is divided by N - 1 and has 0.01 + 1e-5 added to its diagonal. Equal to
    anomalib's MultiVariateGaussian up to float32 rounding. Positions are worked in chunks under `memory_budget`.

    Raises:
        InputError: With fewer than 2 images, or if the rows hold NaN or infinity.
    """
    if rows.ndim != 3:
        raise InputError(f"fit_gaussian needs rows of shape (images, features, positions), got {tuple(rows.shape)}.")
    n, channels, positions = rows.shape
    if n < 2:
        raise InputError(f"PaDiM needs at least 2 training images to estimate a covariance, got {n}. Add good images.")
    rows = rows.float()
    mean = rows.mean(0)
    if not bool(torch.isfinite(mean).all()):
        raise InputError(
            "The training features hold NaN or infinity. Check the backbone's weights and the images' normalisation."
        )
    inverse = rows.new_empty((positions, channels, channels))
    budget = DEFAULT_BUDGET if memory_budget is None else memory_budget
    chunk = max(1, budget // (4 * channels * (n + 3 * channels)))
    for begin in range(0, positions, chunk):
        part = slice(begin, begin + chunk)
        centred = (rows[:, :, part] - mean[:, part]).permute(2, 0, 1).contiguous()  # (N, C, p) -> (p, N, C)
        covariance = torch.bmm(centred.mT, centred).div_(n - 1)  # (p, C, N) @ (p, N, C) -> (p, C, C)
        diagonal = covariance.diagonal(dim1=1, dim2=2)
        # Two additions, as plain makes them: one of their sum rounds otherwise.
        diagonal.add_(REGULARISATION).add_(STABILISATION)
        inverse[part] = _invert(covariance)
    return mean, inverse


def _invert(covariance: torch.Tensor) -> torch.Tensor:
    """Inverse of each symmetric matrix (p, C, C)."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not bool(failed.any()):
        return torch.cholesky_inverse(factor)
    bad = failed != 0
    logger.warning(
        "%d of %d positions: the features are so large (or so alike) that rounding drowns the regularisation; "
        "inverted by LU, as anomalib does. Distances there carry few digits.",
        int(bad.sum()),
        len(covariance),
    )
    inverse = torch.empty_like(covariance)
    inverse[~bad] = torch.cholesky_inverse(factor[~bad])
    inverse[bad] = torch.linalg.inv(covariance[bad])
    return inverse


@torch.no_grad()
def mahalanobis(
    embedding: torch.Tensor, mean: torch.Tensor, inv_covariance: torch.Tensor, *, memory_budget: int | None = None
) -> torch.Tensor:
    """Mahalanobis distance of each patch to the Gaussian of its position.

    `embedding` (B, C, h, w), `mean` (C, h*w), `inv_covariance` (h*w, C, C); returns (B, 1, h, w), at least 0.
    Positions are worked in chunks under `memory_budget`, so that no second copy of the embedding is made.

    Raises:
        InputError: If the embedding has another size than the statistics, e.g. images of another size.
    """
    batch, channels, height, width = embedding.shape
    positions = height * width
    if tuple(inv_covariance.shape) != (positions, channels, channels):
        raise InputError(
            f"The embedding has {channels} features at {height} x {width} positions, the fitted statistics have "
            f"{inv_covariance.shape[-1]} features at {inv_covariance.shape[0]} positions. "
            "Score images with the size, layers and features that the model was fitted with."
        )
    vectors = embedding.reshape(batch, channels, positions)  # (B, C, h, w) -> (B, C, P)
    squared = embedding.new_empty((positions, batch))
    budget = DEFAULT_BUDGET if memory_budget is None else memory_budget
    chunk = max(1, budget // (4 * 4 * batch * channels))
    for begin in range(0, positions, chunk):
        part = slice(begin, begin + chunk)
        delta = (vectors[:, :, part] - mean[:, part]).permute(2, 0, 1).contiguous()  # (B, C, p) -> (p, B, C)
        squared[part] = torch.bmm(delta, inv_covariance[part]).mul_(delta).sum(2)  # (p, B, C) -> (p, B)
    return squared.T.reshape(batch, 1, height, width).clamp(min=0).sqrt()  # (P, B) -> (B, 1, h, w)
