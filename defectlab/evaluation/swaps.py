"""Swap tests of any metric: were the models equal, each image's result could as well be another model's.

The metric is computed on a pool, all models' results of all images one after another (k n of them). A model whose
results are swapped is a resample of the pool: each image once, from one of the models.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from defectlab.evaluation.bootstrap import Resamples, Table, resampled_image_metrics
from defectlab.evaluation.delong import Indices
from defectlab.evaluation.multiple_comparisons import step_down
from defectlab.evaluation.pixel.bootstrap import resampled_pixel_metrics
from defectlab.evaluation.pixel.histograms import PixelHistograms
from defectlab.evaluation.ranks import average_ranks

Pool = Callable[[Resamples], Table]  # the metric (b,) of resamples (b, k n) of the pool; NaN where it has none
REPEATS = 499
MAX_EXACT = 12  # units of which all 2 ** (units - 1) swaps of two models are tried
RANDOM_SWAPS = 2000  # of two models with more units
BATCH_ELEMENTS = 4_000_000
ZERO = 1e-12


def image_pool(name: str, scores: list[Table], labels: NDArray[np.integer], thresholds: list[float | None]) -> Pool:
    """Return an image metric, by its name without level, as a function of resamples of the pool.

    Metrics of curves compare the models' ranks, which have one scale; rates compare decisions at each one's threshold.
    """
    alike = np.tile(labels, len(scores))
    ranks = np.concatenate([average_ranks(its.ravel()) for its in scores])
    pairs = zip(scores, thresholds, strict=True)
    flags = np.concatenate([np.zeros(its.size) if cut is None else (its > cut).astype(float) for its, cut in pairs])

    def metric(resamples: Resamples) -> Table:
        curves = resampled_image_metrics(ranks, alike, None, resamples)
        return curves[name] if name in curves else resampled_image_metrics(flags, alike, 0.5, resamples)[name]

    return metric


def pixel_pool(name: str, models: list[PixelHistograms]) -> Pool:
    """Return a pixel metric, by its name without level, as a function of resamples of the pool.

    Bins lie at quantiles of each model's pixel scores, so their places compare ranks of pixels.
    """
    steps = max(one.defect.shape[1] for one in models)
    defect, good, overlap = (
        np.concatenate([_widened(getattr(one, part), steps) for one in models])
        for part in ("defect", "good", "overlap")
    )
    flagged = [one.flagged for one in models if one.flagged is not None]
    regions = np.concatenate([one.regions for one in models])
    all_flagged = np.concatenate(flagged) if len(flagged) == len(models) else None
    pool = PixelHistograms(defect=defect, good=good, overlap=overlap, regions=regions, flagged=all_flagged)
    return lambda resamples: resampled_pixel_metrics(pool, resamples)[name]


def compare_swapped(metric: Pool, values: Table, units: Indices, *, higher_is_better: bool = True) -> Table:
    """Return, for each model, the p-value (k,) of not being worse than any other, corrected for all comparisons.

    The largest difference of any pair is compared with that of swapped models; see `multiple_comparisons`.

    Args:
        metric: Of the pool of the k models.
        values: (k,) of the models as they are.
        units: (n,): numbers from 0 of what is independent, the image or its part, which is swapped as a whole.
        higher_is_better: Whether a larger value is a better one.
    """
    better = values if higher_is_better else -values

    def maxima(chosen: Indices) -> Table:
        random, count = np.random.default_rng(0), int(units.max()) + 1
        found = []
        for batch in _batches(REPEATS, chosen.size * units.size):
            order = random.random((len(batch), chosen.size, count)).argsort(axis=1)
            found.append(np.ptp(_swapped(metric, chosen[order[:, :, units]], len(values)), axis=1))
        return np.nan_to_num(np.concatenate(found), nan=np.inf)

    return step_down(better - better[:, None], maxima)


def swap_test(metric: Pool, units: Indices) -> float:
    """Return the two-sided p-value of equal metrics of two models: exact up to `MAX_EXACT` units, else by random swaps.

    Args:
        metric: Of the pool of the two models.
        units: (n,): numbers from 0 of what is swapped as a whole.
    """
    random, count = np.random.default_rng(0), int(units.max()) + 1
    exact = count <= MAX_EXACT
    found = []
    for batch in _batches(2 ** (count - 1) if exact else RANDOM_SWAPS, 2 * units.size):  # the mirrored half is the same
        if exact:
            first = np.array(batch)[:, None] >> np.arange(count) & 1
        else:
            first = random.integers(2, size=(len(batch), count))
            if batch.start == 0:
                first[0] = 0  # the models as they are
        swapped = _swapped(metric, np.stack([first, 1 - first], axis=1)[:, :, units], 2)
        found.append(np.abs(swapped[:, 0] - swapped[:, 1]))
    differences = np.nan_to_num(np.concatenate(found), nan=np.inf)
    return float((differences >= differences[0] - ZERO).mean())


def has_unvaried_class(metric: Pool, labels: NDArray[np.integer], units: Indices) -> bool:
    """Return whether leaving out any one unit of a class gives the same difference of two models, which is not 0.

    Resamples of such a class show no variation, so that a bootstrap takes the difference for certain.
    """
    return any(
        _depends_on(metric, labels == label) and _is_unvaried(metric, units, np.unique(units[labels == label]))
        for label in (0, 1)
    )


def _is_unvaried(metric: Pool, units: Indices, members: Indices) -> bool:
    """Return whether the difference of two models is not 0 and the same whichever one unit of `members` is left out."""
    differences = np.zeros(0)
    for batch in _batches(len(members), 2 * units.size):
        left = (units != members[batch][:, None]).astype(np.float32)  # (b, n)
        zeros = np.zeros_like(left)
        one, other = metric(np.concatenate([left, zeros], axis=1)), metric(np.concatenate([zeros, left], axis=1))
        differences = np.concatenate([differences, one - other])
        if not (np.ptp(differences) < ZERO and abs(differences[0]) > ZERO):
            return False
    return True


def _depends_on(metric: Pool, chosen: NDArray[np.bool_]) -> bool:
    """Return whether a metric of the first of two models changes with the results of the chosen images."""
    own, swapped = np.ones(chosen.size), (~chosen).astype(float)
    weights = np.stack([np.concatenate([own, 0 * own]), np.concatenate([swapped, 1 - swapped])])
    value, other = metric(weights.astype(np.float32))
    return bool(abs(value - other) > ZERO)


def _swapped(metric: Pool, order: Indices, models: int) -> Table:
    """Return the metric (b, k) of models that take each image's result from the model that `order` (b, k, n) names."""
    rows = order.reshape(-1, order.shape[-1])
    found = []
    for batch in _batches(len(rows), models * rows.shape[1]):
        weights = np.zeros((len(batch), models, rows.shape[1]), dtype=np.float32)
        np.put_along_axis(weights, rows[batch][:, None], 1.0, axis=1)
        found.append(metric(weights.reshape(len(batch), -1)))
    return np.concatenate(found).reshape(order.shape[:-1])


def _batches(rows: int, columns: int) -> list[range]:
    """Return the numbers of the rows of a table in batches of at most `BATCH_ELEMENTS` elements, or of one row."""
    size = max(1, BATCH_ELEMENTS // columns)
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def _widened(table: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """Return a table (n, k) with its columns spread over `steps` columns, in their order."""
    wide = np.zeros((len(table), steps), dtype=np.float32)
    wide[:, np.round(np.linspace(0, steps - 1, table.shape[1])).astype(int)] = table
    return wide
