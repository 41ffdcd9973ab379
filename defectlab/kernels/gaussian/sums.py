"""Mean and covariance of each patch position from sums, for embeddings that would not fit into memory."""

import torch

from defectlab.kernels.gaussian.fit import REGULARISATION, STABILISATION, Gaussian, NotPositiveError
from defectlab.kernels.linalg import batched_cholesky, gram, over_chunks
from defectlab_runtime.errors import InputError

CHUNK = 32


class GaussianSums:
    """Sums of x and x x.T over images, in float64, so that order and number of images cost no precision.

    Memory is 8 P C^2 bytes, whatever the number of images. `add` takes batches, `fit` gives the statistics of all
    images so far in the factor form; more may be added afterwards.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: torch.Tensor | None = None  # (P, C)
        self._second: torch.Tensor | None = None  # (P, C, C)

    @classmethod
    def of(cls, gaussian: Gaussian, count: int) -> "GaussianSums":
        """Return the sums of the `count` images from which a Gaussian of the factor form was fitted.

        They are as exact as its float32 factor.
        """
        if gaussian.form != "factor" or gaussian.factor is None:
            raise ValueError(f"Sums come from the factor form, got {gaussian.form}.")
        sums, mean = cls(), gaussian.mean.T.double()  # (P, C)
        factors = gaussian.factor
        second = torch.empty_like(factors, dtype=torch.float64)

        def work(part: slice) -> None:
            factor = factors[part].double()
            covariance = torch.bmm(factor, factor.mT)
            covariance.diagonal(dim1=1, dim2=2).sub_(REGULARISATION + STABILISATION)
            outer = mean[part].unsqueeze(2) * mean[part].unsqueeze(1)  # (p, C, C)
            second[part] = covariance.mul_(count - 1).add_(outer, alpha=count)

        over_chunks(work, len(mean), CHUNK, mean.device)
        sums.count, sums._first, sums._second = count, mean * count, second
        return sums

    def add(self, rows: torch.Tensor) -> None:
        """Add the embeddings (B, C, P) of B images to the sums.

        Raises:
            InputError: Another number of features or positions than before.
        """
        _, channels, positions = rows.shape
        if self._first is None or self._second is None:
            self._first = rows.new_zeros((positions, channels), dtype=torch.float64)
            self._second = rows.new_zeros((positions, channels, channels), dtype=torch.float64)
        if tuple(self._first.shape) != (positions, channels):
            raise InputError(
                f"These embeddings have {channels} features at {positions} positions, the ones before "
                f"{self._first.shape[1]} at {self._first.shape[0]}."
            )
        first, second = self._first, self._second

        def work(part: slice) -> None:
            batch = rows[:, :, part].double().permute(2, 0, 1).contiguous()  # (B, C, p) -> (p, B, C)
            first[part] += batch.sum(1)
            second[part] += gram(batch)

        over_chunks(work, positions, CHUNK, rows.device)
        self.count += len(rows)

    def fit(self) -> Gaussian:
        """Return mean and Cholesky factor, float32, regularised as in `fit_factor`.

        Raises:
            InputError: Fewer than 2 images, or NaN or infinity among them.
            NotPositiveError: Rounding drowns the regularisation.
        """
        if self.count < 2 or self._first is None or self._second is None:
            raise InputError(
                f"PaDiM needs at least 2 training images to estimate a covariance, got {self.count}. Add good images."
            )
        first, second, count = self._first, self._second, self.count
        if not bool(torch.isfinite(first).all()):
            raise InputError(
                "The training features hold NaN or infinity. Check the backbone's weights and the images' "
                "normalisation."
            )
        mean = first / count  # (P, C)
        factor = torch.empty_like(second, dtype=torch.float32)
        failed = torch.zeros(len(mean), dtype=torch.bool, device=mean.device)

        def work(part: slice) -> None:
            outer = mean[part].unsqueeze(2) * mean[part].unsqueeze(1)  # (p, C, C)
            covariance = second[part].sub(outer, alpha=count).div_(count - 1)
            covariance.diagonal(dim1=1, dim2=2).add_(REGULARISATION).add_(STABILISATION)
            found, failed[part] = batched_cholesky(covariance)
            factor[part] = found.float()

        over_chunks(work, len(mean), CHUNK, mean.device)
        if bool(failed.any()):
            raise NotPositiveError(f"{int(failed.sum())} of {len(failed)} covariances are not positive definite")
        return Gaussian(mean.T.float().contiguous(), factor=factor)
