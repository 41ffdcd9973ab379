"""Intervals of pixel metrics: whole images drawn again, from each image's counts of pixels by step of the scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab.evaluation.bootstrap import (
    REPEATS,
    Draws,
    Table,
    bootstrap_problem,
    logit_interval,
    resample_counts,
    resampled_curve_metrics,
    resampled_rates,
    with_original,
)
from defectlab.evaluation.intervals import CONFIDENCE, Interval
from defectlab.evaluation.metrics import round_down
from defectlab.evaluation.pixel.blocks import region_numbers
from defectlab.evaluation.pixel.maps_and_masks import PixelImages
from defectlab.evaluation.pixel.metrics import FPR_LIMIT

STEPS = 500  # cuts at quantiles of defect pixels, and as many at those of good ones
SAMPLE = 400_000  # pixels of each kind that the cuts are chosen from
AT_ONCE = 200  # draws


@dataclass(frozen=True)
class PixelCounts:
    """What each of n images holds, by k steps of the scores, ascending.

    Attributes:
        defect: (n, k) defect pixels.
        good: (n, k) good pixels.
        overlap: (n, k) of each connected region the share that lies in the step, added up over the image's regions.
        regions: (n,) connected regions.
        flagged: (n, 2) defect and good pixels above the threshold.
    """

    defect: NDArray[np.float32]
    good: NDArray[np.float32]
    overlap: NDArray[np.float32]
    regions: NDArray[np.float32]
    flagged: NDArray[np.float64] | None


def pixel_intervals(
    images: PixelImages,
    labels: ArrayLike,
    threshold: float | None,
    groups: Sequence[str] | None = None,
    *,
    repeats: int = REPEATS,
    confidence: float = CONFIDENCE,
) -> dict[str, Interval]:
    """Return an interval of every pixel metric, by its name without a level, by the bootstrap over images.

    The curve of a draw has a point at about a thousand scores, which lie at quantiles of defect and good pixels; the
    counts at these are exact.

    Args:
        images: Maps and masks of n images, without NaN.
        labels: (n,) of the images, 0 good, 1 anomalous, -1 left out.
        threshold: A pixel is called a defect above it.
        groups: (n,) names of what is drawn as a whole.
        repeats: Number of draws.
        confidence: Of the intervals.
    """
    known = np.asarray(labels)
    counts = pixel_counts(images, threshold)
    drawn = resampled_pixel_metrics(counts, with_original(resample_counts(known, groups, repeats), known))
    unit = "images" if groups is None else "groups of images"
    method = f"stratified bootstrap over {unit}, {repeats} draws, scores in {counts.defect.shape[1]} steps"
    lack = bootstrap_problem(known, groups)
    return {name: logit_interval(values, method, confidence, lack) for name, values in drawn.items()}


def pixel_counts(images: PixelImages, threshold: float | None = None, steps: int = STEPS) -> PixelCounts:
    """Count every image's pixels by step; where there are fewer distinct scores than steps, each is one."""
    cuts = _cuts(images, steps)
    count, k = len(images.sizes), cuts.size + 1
    defect, good, overlap = (np.zeros((count, k), dtype=np.float32) for _ in range(3))
    regions, flagged = np.zeros(count, dtype=np.float32), np.zeros((count, 2))
    limit = None if threshold is None or np.isnan(threshold) else round_down(threshold, np.float32)
    for index in range(count):
        anomaly_map, mask = images.map(index), images.mask(index)
        every = np.sort(anomaly_map, axis=None)
        pixels = np.diff(np.searchsorted(every, cuts, "right"), prepend=0, append=every.size)
        if limit is not None:
            flagged[index, 1] = every.size - np.searchsorted(every, limit, "right")
        if mask.any():
            found = anomaly_map[mask]
            step = np.searchsorted(cuts, found, "left")
            defect[index] = np.bincount(step, minlength=k)
            numbers, sizes = region_numbers([mask], 0)
            overlap[index] = np.bincount(step, weights=1 / sizes[numbers.astype(np.int64)], minlength=k)
            regions[index] = sizes.size
            if limit is not None:
                flagged[index, 0] = np.count_nonzero(found > limit)
        good[index] = pixels - defect[index]
    flagged[:, 1] -= flagged[:, 0]
    return PixelCounts(defect, good, overlap, regions, None if limit is None else flagged)


def resampled_pixel_metrics(counts: PixelCounts, draws: Draws) -> dict[str, Table]:
    """As `drawn_metrics`, some draws at a time, which bounds the memory."""
    parts = [drawn_metrics(counts, draws[start : start + AT_ONCE]) for start in range(0, len(draws), AT_ONCE)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def drawn_metrics(counts: PixelCounts, draws: Draws, fpr_limit: float = FPR_LIMIT) -> dict[str, Table]:
    """Return each pixel metric (b,) of draws (b, n)."""
    # float32 holds whole numbers up to 2 ** 24, and a draw's counts of one step may be more: rounding, far below a step
    defect, good = ((draws @ part).astype(np.float64) for part in (counts.defect, counts.good))
    found = resampled_curve_metrics(defect, good)
    overlap = (draws @ counts.overlap).astype(np.float64)
    regions = (draws @ counts.regions).astype(np.float64)
    found["AUPRO"] = _overlap_area(overlap, good, regions, fpr_limit)
    if counts.flagged is not None:
        flagged = draws.astype(np.float64) @ counts.flagged
        found |= resampled_rates(flagged[:, 0], flagged[:, 1], defect.sum(1), good.sum(1))
    return found


def _overlap_area(overlap: Table, good: Table, regions: Table, limit: float) -> Table:
    """Area under the mean overlap of regions up to a false-positive rate, by that rate: (b,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rise = good[:, ::-1] / good.sum(1, keepdims=True)  # (b, k), from the highest scores down
        after = np.cumsum(overlap[:, ::-1], axis=1) / regions[:, None]
        before = after - overlap[:, ::-1] / regions[:, None]
        start = np.cumsum(rise, axis=1) - rise
        share = np.where(rise > 0, np.clip((limit - start) / rise, 0, 1), 0)
        area = (rise * share * (before + (after - before) * share / 2)).sum(1)
    return np.where((regions > 0) & (good.sum(1) > 0), area / limit, np.nan)


def _cuts(images: PixelImages, steps: int) -> NDArray[np.float32]:
    """Return scores, ascending, at quantiles of a sample of defect and good pixels, dense at the top."""
    generator = np.random.default_rng(0)
    count = len(images.sizes)
    samples: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
    for index in range(count):
        scores, marks = images.map(index).ravel(), images.mask(index).ravel()
        most = -(-SAMPLE // count)
        chosen = generator.integers(scores.size, size=most) if scores.size > most else np.arange(scores.size)
        samples[1].append(scores[chosen][~marks[chosen]])
        found = scores[marks]
        samples[0].append(found[generator.integers(found.size, size=most)] if found.size > most else found)
    whole, top = np.linspace(0, 1, steps // 2), 1 - np.geomspace(1e-5, 1, steps // 2)
    shares = (np.concatenate([whole, np.linspace(0, 0.1, steps // 2)]), np.concatenate([whole, top]))  # 5 % are missed
    cuts = [np.empty(0, dtype=np.float32)]
    for sample, share in zip(samples, shares, strict=True):
        values = np.sort(np.concatenate([*sample, np.empty(0, dtype=np.float32)]))
        distinct = np.unique(values)
        if distinct.size <= steps:
            cuts.append(distinct)
        else:
            cuts.append(values[np.round(share * (values.size - 1)).astype(int)])
    return np.unique(np.concatenate(cuts))
