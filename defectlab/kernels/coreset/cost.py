"""Size of a coreset and the estimated cost of its selection, known before the selection starts."""

from dataclasses import dataclass

import torch

from defectlab.kernels.linalg import measured_product_rate
from defectlab_runtime.errors import OptionError

DEFAULT_BUDGET = 256 * 2**20  # bytes of working memory beside the rows: more gained nothing on two cores
TILE = 1024  # centres per matrix product: a tile's distances stay in cache, rows that fell back leave after each
MAX_POOL = 2048  # rows per round: more makes each pick sweep a larger pool, fewer make thin products

# Measured on ResNet-18 patches (bottle, layers 2-3), as shares of the products of all rows with all centres. WHOLE:
# without cells, the time around the products included. EARLY: with cells, of the picks before those help. LATE: of the
# picks after them, to which comes the time of a pick itself.
WHOLE = 0.69
EARLY = 2.8
LATE = 0.046
SECONDS_PER_PICK = 2.7e-4
MIN_CELLS = 64
MAX_CELLS = 512
ROWS_PER_CELL = 1024
MIN_PICKS = 256  # fewer are not worth cells
PICKS_PER_CELL = 4  # before cells have so many, they hold no centre near their rows


@dataclass(frozen=True)
class Estimate:
    """Expected wall time and peak memory beside the embedding itself: right within a factor of about 3."""

    seconds: float
    bytes: int


def block_rows(size: int, budget: int) -> int:
    """Return the number of rows of `size` float32 numbers that a round works on within `budget` bytes."""
    return max(16, min(MAX_POOL, budget // (4 * (3 * size + 2 * TILE))))


def estimate(n: int, d: int, n_samples: int, *, device: torch.device | str = "cpu") -> Estimate:
    """Estimate the cost of picking `n_samples` of `n` rows of `d` numbers (after projection) on this machine, now.

    Takes some hundredths of a second: a matrix product of the search's own shape is timed, the rest is a model fitted
    to real patches. Many rows without clusters cost several times as much.
    """
    block = block_rows(d, DEFAULT_BUDGET)
    rate, cells = measured_product_rate(block, d, TILE, torch.device(device)), cell_count(n, n_samples, device)
    early = min(n_samples, PICKS_PER_CELL * cells)
    picks = EARLY * early + LATE * (n_samples - early) if cells else WHOLE * n_samples
    seconds = 2.0 * n * d / rate * picks + n_samples * SECONDS_PER_PICK
    size = 4 * n * d + 20 * n + n_samples * (4 * d + 12) + block * (12 * d + 5 * TILE)
    if cells:
        size += n * (d + 16) + n_samples * (d + 4 * cells)  # leading directions are a sixth to a quarter of d
    return Estimate(seconds, size)


def cell_count(n: int, n_samples: int, device: torch.device | str) -> int:
    """Return into how many cells a search for `n_samples` of `n` rows groups them; 0 on a GPU or for few rows.

    >>> cell_count(214_016, 21_401, "cpu"), cell_count(20_000, 2_000, "cpu")
    (209, 0)
    """
    cells = min(MAX_CELLS, n // ROWS_PER_CELL)
    # On a GPU a product of all costs less than to launch many of few.
    return cells if torch.device(device).type == "cpu" and n_samples >= MIN_PICKS and cells >= MIN_CELLS else 0


def coreset_size(n: int, ratio: float) -> int:
    """Return the number of rows in a coreset of `ratio` of `n` rows, rounded down as anomalib does.

    Raises:
        OptionError: If no row would be left; names the smallest ratio that works.

    >>> coreset_size(2000, 0.01)
    20
    """
    if not 0 < ratio <= 1:
        raise OptionError(f"coreset_sampling_ratio must be a number in (0, 1], got {ratio!r}.")
    size = int(n * ratio)
    if size == 0:
        raise OptionError(
            f"coreset_sampling_ratio {ratio!r} of {n} patches keeps none of them. "
            + (f"The smallest ratio that works here is {smallest_ratio(n)!r}." if n > 0 else "There are no patches.")
        )
    return size


def smallest_ratio(n: int) -> float:
    """Return the smallest short decimal ratio that keeps one of `n` rows.

    >>> smallest_ratio(300)
    0.0034
    """
    for digits in range(1, 18):
        ratio = round(1 / n, digits)
        ratio = ratio if int(n * ratio) else round(ratio + 10.0**-digits, digits)
        # Two significant digits are near enough to the true bound.
        if int(n * ratio) and ratio * n < 1.1:
            return min(ratio, 1.0)
    return 1.0
