"""Principal axes of rows, means of cells and bounds of rounding errors, by which exact searches exclude pairs.

Patch features have most of their variance in few directions, and cluster. Two rows are at least as far apart as their
coordinates along some axes, and as the triangle inequality says from the means of their cells: filters that cost a
fraction of a distance and never lose a near pair.
"""

import torch

MAX_SAMPLE = 20_000  # rows from which the axes are found
AXES_STEP = 16
ROWS_PER_MEAN = 64  # rows a mean is found on
ROUNDS = 4


def product_error(size: int) -> float:
    """Return a bound of |computed x.c - true x.c| / (|x| |c|) for vectors of `size` float32 numbers.

    Lightning users lower the precision of products (TF32, bfloat16): the bound then widens instead of failing.
    """
    inputs = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-7}[torch.get_float32_matmul_precision()]
    if torch.backends.cuda.matmul.allow_tf32:
        inputs = max(inputs, 2.0**-10)
    return inputs + (size + 4) * 2.0**-24


def leading_axes(rows: torch.Tensor, explained_variance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean (D,) of a sample of rows (N, D) and its first principal axes (D, p), both float32.

    p is the least multiple of 16 whose axes explain this share of the variance, or D.
    """
    size = rows.shape[1]
    sample = rows[:: max(1, len(rows) // MAX_SAMPLE)].double()
    mean = sample.mean(0)
    variances, axes = torch.linalg.eigh((sample - mean).T @ (sample - mean))
    variances = variances.flip(0).clamp(min=0)
    enough = int((variances.cumsum(0) < explained_variance * variances.sum()).sum()) + 1
    count = min(size, -(-enough // AXES_STEP) * AXES_STEP)
    return mean.float(), axes[:, -count:].float().contiguous()


def cell_means(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Return the means (count, d) of a deterministic k-means on evenly spaced rows of (N, d)."""
    sample = rows[:: max(1, len(rows) // (count * ROWS_PER_MEAN))].float()
    means = sample[torch.linspace(0, len(sample) - 1, count).long()].clone()
    for _ in range(ROUNDS):
        half = torch.addmm(means.square().sum(1).mul_(0.5), sample, means.T, alpha=-1)
        nearest = half.argmin(1)
        sizes = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(means).index_add_(0, nearest, sample)
        filled = sizes > 0
        means[filled] = sums[filled] / sizes[filled, None]
    return means
