"""Principal subspace of patches: a PCA fitted from sums, and squared distances to the subspace.

The sums are a count, a mean and a scatter, so that memory is C x C whatever the number of patches, and those of two
sets of patches can be joined.
"""

import torch

from defectlab_runtime.errors import InputError

RANK_TOLERANCE = 1e-12  # of the largest variance: below it a direction has none but rounding
TIE_TOLERANCE = 1e-9  # relative: variances this near are equal but for rounding


class PatchSums:
    """Count, mean (C,) and scatter (C, C) of patches, float64: the scatter is the sum of (x - mean) (x - mean).T.

    Each batch is centred on its own mean before it is squared, and joined by the formula of Chan, Golub and LeVeque
    (1979), so that features far from zero lose no digits. The order of batches changes the last digits only.
    """

    def __init__(self, count: int, mean: torch.Tensor, scatter: torch.Tensor) -> None:
        self.count = count
        self.mean = mean
        self.scatter = scatter

    @classmethod
    def of(cls, rows: torch.Tensor) -> "PatchSums":
        """Return the sums of patches (N, C), on the CPU.

        Raises:
            InputError: No patch, or NaN or infinity among them.
        """
        if not len(rows):
            raise InputError("There are no patches to fit a subspace to. Add good images.")
        # Apple's GPUs know no float64
        exact = rows.to(torch.device("cpu") if rows.device.type == "mps" else rows.device, torch.float64)
        mean = exact.mean(0)
        if not bool(torch.isfinite(mean).all()):
            raise InputError(
                "The training features hold NaN or infinity. Check the backbone's weights and the images' "
                "normalisation."
            )
        centred = exact - mean
        return cls(len(rows), mean.cpu(), (centred.T @ centred).cpu())

    def __add__(self, other: "PatchSums") -> "PatchSums":
        """Return the sums of the patches of both.

        Raises:
            InputError: Patches of different length.
        """
        if self.mean.shape != other.mean.shape:
            raise InputError(f"Patches of {len(other.mean)} features cannot join those of {len(self.mean)}.")
        count = self.count + other.count
        between = other.mean - self.mean
        mean = self.mean + between * (other.count / count)
        apart = torch.outer(between, between) * (self.count * other.count / count)
        return PatchSums(count, mean, self.scatter + other.scatter + apart)

    def principal_axes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the variances (C,) of the principal axes, largest first, and the axes (C, C), one a column; float64.

        Variances are divided by N - 1; those without any but rounding are 0.
        """
        found, axes = torch.linalg.eigh(self.scatter / max(1, self.count - 1))
        variances = found.flip(0).clamp(min=0)
        return torch.where(variances > RANK_TOLERANCE * variances[0], variances, 0.0), axes.flip(1)


def subspace_size(variances: torch.Tensor, explained_variance: float, n_components: int | None = None) -> int:
    """Return how many of the first principal axes make the subspace.

    The fewest that hold at least the share `explained_variance` of all variance, or `n_components`; never one without
    variance, and all of several with equal variance, which alone would not be determined.

    Args:
        variances: (C,), largest first, as `PatchSums.principal_axes` returns them.
        explained_variance: In (0, 1].
        n_components: So many instead.

    >>> subspace_size(torch.tensor([6.0, 3.0, 1.0, 0.0]), 0.9), subspace_size(torch.tensor([2.0, 1.0, 1.0]), 0.6)
    (2, 3)
    """
    rank = int((variances > 0).sum())
    if not rank:
        return 0
    if n_components is None:
        held = variances.cumsum(0)
        needed = explained_variance * held[-1] * (1 - TIE_TOLERANCE)  # a share of 1 is reached but for rounding
        size = int((held < needed).sum()) + 1
    else:
        size = n_components
    size = min(size, rank)
    return int((variances >= variances[size - 1] * (1 - TIE_TOLERANCE)).sum())


def residuals(rows: torch.Tensor, mean: torch.Tensor, complement: torch.Tensor) -> torch.Tensor:
    """Return the squared distances (N,) of patches (N, C) to a subspace through `mean` (C,).

    `complement` (C, D) are the axes outside the subspace: the distance is a sum of squares along them, without the
    cancellation of subtracting a projection.
    """
    return ((rows - mean) @ complement).square_().sum(dim=1)


def prefix_residuals(rows: torch.Tensor, mean: torch.Tensor, axes: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Return the squared distances (S, N) of patches (N, C) to the subspaces of the first `sizes` of `axes` (C, C)."""
    squares = ((rows - mean) @ axes).square_()  # (N, C)
    return torch.stack([squares[:, size:].sum(dim=1) for size in sizes])
