"""Lower bounds of distances from a few leading coordinates: a filter that never loses a near pair.

Patch features have most of their spread in few directions. Two rows are at least as far apart as their coordinates
along these: a product of the short rows costs a fraction, and what it cannot exclude is measured in full.
"""

import torch

SAMPLE = 20_000  # rows from which the axes are found
STEP = 16


def product_error(size: int) -> float:
    """Bound of |computed x.c - true x.c| / (|x| |c|) for vectors of `size` float32 numbers.

    Lightning users lower the precision of products (TF32, bfloat16): the filter then widens instead of failing.
    """
    inputs = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-7}[torch.get_float32_matmul_precision()]
    if torch.backends.cuda.matmul.allow_tf32:
        inputs = max(inputs, 2.0**-10)
    return inputs + (size + 4) * 2.0**-24


def leading_axes(rows: torch.Tensor, held: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) of a sample of rows (N, D), and its first principal axes (D, p) that hold this share of its spread.

    p is a multiple of 16, or D. Both are float32.
    """
    size = rows.shape[1]
    sample = rows[:: max(1, len(rows) // SAMPLE)].double()
    mean = sample.mean(0)
    spread, axes = torch.linalg.eigh((sample - mean).T @ (sample - mean))
    spread = spread.flip(0).clamp(min=0)
    enough = int((spread.cumsum(0) < held * spread.sum()).sum()) + 1
    kept = min(size, -(-enough // STEP) * STEP)
    return mean.float(), axes[:, -kept:].float().contiguous()


ROWS_PER_MEAN = 64  # rows a mean is found on
ROUNDS = 4


def cell_means(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Means (count, d) of k-means on evenly spaced rows, the same every time."""
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
