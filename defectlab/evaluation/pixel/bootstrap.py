"""Bootstrap intervals of pixel metrics: whole images are resampled, using a histogram of each image's pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from defectlab.evaluation.bootstrap import (
    REPEATS,
    Resamples,
    Table,
    bootstrap_intervals,
    fewest_units,
    resampled_curve_metrics,
    resampled_rates,
)
from defectlab.evaluation.intervals import CONFIDENCE, Interval
from defectlab.evaluation.pixel.histograms import PixelHistograms, pixel_histograms
from defectlab.evaluation.pixel.maps_and_masks import PixelImages
from defectlab.evaluation.pixel.metrics import FPR_LIMIT

MIN_IMAGES_FOR_RATE = 60  # of each class, for an interval of FPR_at_95TPR (`benchmarks/simulate_coverage.py`)
BATCH_SIZE = 200  # resamples computed at one time, which bounds the memory


def pixel_intervals(
    images: PixelImages,
    labels: ArrayLike,
    threshold: float | None,
    groups: Sequence[str] | None = None,
    *,
    repeats: int = REPEATS,
    confidence: float = CONFIDENCE,
) -> dict[str, Interval]:
    """Return a bootstrap interval over images for every pixel metric, keyed by the metric's name without its level.

    The curve of a resample has a point at about a thousand scores, which lie at quantiles of defect and good pixels;
    the counts at these are exact.

    Args:
        images: Maps and masks of n images, without NaN.
        labels: (n,) of the images, 0 good, 1 anomalous, -1 left out.
        threshold: A pixel is called a defect above it.
        groups: (n,) names of what is drawn as a whole.
        repeats: Number of resamples.
        confidence: Of the intervals.
    """
    counts = pixel_histograms(images, threshold)
    note = f", scores in {counts.defect.shape[1]} steps"
    intervals = bootstrap_intervals(
        lambda resamples: resampled_pixel_metrics(counts, resamples), labels, groups, repeats, confidence, note
    )
    smallest, what = fewest_units(labels, groups), "images" if groups is None else "groups of images"
    if "FPR_at_95TPR" in intervals and smallest < MIN_IMAGES_FOR_RATE:
        reason = (
            f"{smallest} {what} of a class: with fewer than {MIN_IMAGES_FOR_RATE} the bootstrap covers less than 93 %"
        )
        intervals["FPR_at_95TPR"] = Interval(None, None, reason)
    return intervals


def resampled_pixel_metrics(counts: PixelHistograms, resamples: Resamples) -> dict[str, Table]:
    """Return each pixel metric (b,) on resamples (b, n), keyed by the metric's name without its level."""
    batches = [
        _batch_metrics(counts, resamples[start : start + BATCH_SIZE]) for start in range(0, len(resamples), BATCH_SIZE)
    ]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _batch_metrics(counts: PixelHistograms, resamples: Resamples) -> dict[str, Table]:
    # float32 holds whole numbers up to 2 ** 24, and a resample's counts of one bin may be more: rounding, far below one
    defect, good, overlap = (
        (resamples @ part).astype(np.float64) for part in (counts.defect, counts.good, counts.overlap)
    )
    regions = (resamples @ counts.regions).astype(np.float64)
    found = resampled_curve_metrics(defect, good) | {"AUPRO": _overlap_area(overlap, good, regions, FPR_LIMIT)}
    if counts.flagged is not None:
        flagged = resamples.astype(np.float64) @ counts.flagged
        found |= resampled_rates(flagged[:, 0], flagged[:, 1], defect.sum(1), good.sum(1))
    return found


def _overlap_area(overlap: Table, good: Table, regions: Table, limit: float) -> Table:
    """Return the area under the mean region overlap up to the false-positive rate `limit`, divided by it: (b,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rise = good[:, ::-1] / good.sum(1, keepdims=True)  # (b, k), from the highest scores down
        after = np.cumsum(overlap[:, ::-1], axis=1) / regions[:, None]
        before = after - overlap[:, ::-1] / regions[:, None]
        start = np.cumsum(rise, axis=1) - rise
        share = np.where(rise > 0, np.clip((limit - start) / rise, 0, 1), 0)
        area = (rise * share * (before + (after - before) * share / 2)).sum(1)
    return np.where((regions > 0) & (good.sum(1) > 0), area / limit, np.nan)
