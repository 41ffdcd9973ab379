"""Multiple comparisons of models on the same images: which cannot be the best of them.

A test of each model against the one that happened to score best finds false differences: the best was picked on these
very images. Here every model is compared with every other, with one critical value for all pairs (as Hsu's comparison
with the best, 1984, and Tukey's test have one), from resamples of the same images, in the step-down form of Romano and
Wolf (2005): models that are told from a better one are left out, and the others are compared again among themselves. Of
equal models any is called worse with a probability of at most the level, whatever their number.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from defectlab.evaluation.delong import Indices
from defectlab.evaluation.metrics import Floats
from defectlab.evaluation.ranks import average_ranks

LEVEL = 0.05
REPEATS = 499
MIN_REPEATS = 199
MAX_PRODUCTS = 4e9  # multiplications for the covariances of all resamples, which bounds the time for many models
BATCH_ELEMENTS = 2_000_000
ZERO = 1e-12
Table = NDArray[np.float64]
Maxima = Callable[[Indices], Table]


def compare_auroc(scores: Sequence[Floats], labels: NDArray[np.integer], units: Indices, seed: int = 0) -> Table:
    """Return, for each model, the corrected p-value (k,) of not being below any other in AUROC.

    The resamples swap the models' scores, as ranks, image by image: where models are equal, any of them could have
    given a score. With part numbers a part's images are swapped together; variances are clustered (Obuchowski, 1997).

    Args:
        scores: (s, n) of each model, from s seeds, whose mean AUROC is compared; without NaN.
        labels: (n,): 0 good, 1 anomalous.
        units: (n,): numbers from 0 of what is independent: the image, or the part that it shows.
        seed: Of the resamples.
    """
    swaps = _Swaps(scores, labels == 1, units, seed)
    return step_down(swaps.observed, swaps.maxima)


def step_down(observed: Table, maxima: Maxima, level: float = LEVEL) -> Table:
    """Return each model's p-value (k,), corrected for all comparisons.

    Args:
        observed: (k, k): by how many standard errors the model of a row is below that of a column.
        maxima: Returns the largest such value of any pair of the models at hand (b,), one for each resample.
        level: Models with a lower p-value are left out of the next step.
    """
    p_values, highest = np.ones(len(observed)), 0.0
    remaining = np.arange(len(observed))
    while remaining.size > 1:
        below = observed[np.ix_(remaining, remaining)].max(axis=1)
        largest = maxima(remaining)
        found = (1 + (largest >= below[:, None] - 1e-9).sum(axis=1)) / (largest.size + 1)
        p_values[remaining] = np.maximum(found, highest)
        left_out = p_values[remaining] < level
        if not left_out.any():
            break
        highest = max(highest, float(p_values[remaining][left_out].max()))
        remaining = remaining[~left_out]
    return p_values


class _Swaps:
    """Resamples of models' ranks, swapped unit by unit, and the statistics of all pairs on them."""

    def __init__(self, scores: Sequence[Floats], bad: NDArray[np.bool_], units: Indices, seed: int) -> None:
        most = max(len(its) for its in scores)
        ranks = [np.resize(average_ranks(its), (most, bad.size)) for its in scores]  # fewer seeds are repeated
        self._ranks = np.rint(2 * np.stack(ranks)).astype(np.intp)  # (k, s, n), whole numbers up to 2 n
        self._bad = bad
        self._seed = seed
        self._units = np.unique(units, return_inverse=True)[1]
        self._count = int(self._units.max()) + 1
        self._unit_of = [self._units[bad], self._units[~bad]]
        # (m, u) and (n, u), sparse: 1 where an image belongs to a unit, to sum over the images of each
        self._members = [
            csr_array((np.ones(its.size), (np.arange(its.size), its)), shape=(its.size, self._count))
            for its in self._unit_of
        ]
        self._grouped = self._count < bad.size
        own = [self._placements(np.rint(2 * average_ranks(its)).astype(np.intp)[None]) for its in scores]
        above, below = (np.concatenate(parts) for parts in zip(*own, strict=True))
        self.observed = _statistics(above.mean(axis=-1), _spread(self._covariances(above, below)))

    def maxima(self, chosen: Indices) -> Table:
        """Return the largest statistic of any pair of the chosen models on each resample (b,)."""
        generator = np.random.default_rng(self._seed)
        ranks, count = self._ranks[chosen], len(chosen)
        repeats = int(np.clip(MAX_PRODUCTS / (count**2 * self._bad.size), MIN_REPEATS, REPEATS))
        size = max(1, BATCH_ELEMENTS // (2 * ranks.size))
        found = []
        for start in range(0, repeats, size):
            order = generator.random((min(size, repeats - start), count, self._count)).argsort(axis=1)
            model = order[:, :, None, self._units]  # (b, k, 1, n): which model's rank each model gets
            above, below = self._placements(np.take_along_axis(ranks[None], model, axis=1))
            found.append(_largest(above.mean(axis=-1), _spread(self._covariances(above, below))))
        return np.concatenate(found)

    def _placements(self, ranks: NDArray[np.intp]) -> tuple[Table, Table]:
        """Return the placements (..., m) and (..., n) of ranks (..., s, m + n), averaged over seeds."""
        rows, width = ranks.size // self._bad.size, 2 * self._bad.size + 1
        flat = ranks.reshape(rows, -1) + width * np.arange(rows)[:, None]
        bad, good = flat[:, self._bad], flat[:, ~self._bad]
        shares = []
        for own, other in ((bad, good), (good, bad)):
            counts = np.bincount(other.ravel(), minlength=rows * width).reshape(rows, width)
            not_above = (np.cumsum(counts, axis=1) - counts / 2) / other.shape[1]
            share = not_above.ravel()[own].reshape(*ranks.shape[:-1], -1)
            shares.append(share.mean(axis=-2))
        return shares[0], 1 - shares[1]

    def _covariances(self, above: Table, below: Table) -> Table:
        """Return the covariances (..., k, k) of AUROCs from placements (..., k, m or n); see `placement_variance`."""
        above, below = (part - part.mean(axis=-1, keepdims=True) for part in (above, below))
        m, n = above.shape[-1], below.shape[-1]
        if not self._grouped:
            return above @ _transposed(above) / (m * (m - 1)) + below @ _transposed(below) / (n * (n - 1))
        positive, negative = (
            (part.reshape(-1, part.shape[-1]) @ members).reshape(*part.shape[:-1], -1)  # (..., k, u)
            for part, members in zip((above, below), self._members, strict=True)
        )
        units = self._count
        counts = [np.unique(its).size for its in self._unit_of]
        cross = positive @ _transposed(negative)
        return (
            counts[0] / ((counts[0] - 1) * m * m) * (positive @ _transposed(positive))
            + counts[1] / ((counts[1] - 1) * n * n) * (negative @ _transposed(negative))
            + units / ((units - 1) * m * n) * (cross + _transposed(cross))
        )


def _spread(covariances: Table) -> Table:
    """Return the standard error (..., k, k) of the difference of each pair."""
    variances = np.diagonal(covariances, axis1=-2, axis2=-1)
    return np.sqrt(np.maximum(variances[..., None] + variances[..., None, :] - 2 * covariances, 0.0))


def _statistics(values: Table, spread: Table) -> Table:
    """Return by how many standard errors (..., k, k) a row's model is below a column's; infinitely many without any.

    `values` (..., k) are the models', `spread` is that of `_spread`.
    """
    differences = values[..., None, :] - values[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = differences / np.where(spread > ZERO**0.5, spread, 0.0)
    return np.where(np.abs(differences) < ZERO, 0.0, found)


def _transposed(table: Table) -> Table:
    return np.swapaxes(table, -1, -2)


def _largest(values: Table, spread: Table) -> Table:
    return _statistics(values, spread).max(axis=(-2, -1))
