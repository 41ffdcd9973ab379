"""Curves over pixels for plots, computed image by image, so that the number of maps on disk is not limited."""

import numpy as np
from numpy.typing import NDArray

from defectlab.evaluation.pixel.histograms import pixel_histograms
from defectlab.evaluation.pixel.maps_and_masks import PixelImages

Points = tuple[NDArray[np.float64], NDArray[np.float64]]


def pixel_curves(images: PixelImages) -> dict[str, Points]:
    """Return the points (x, y) of the ROC, precision-recall and per-region overlap curves of pixels.

    Where there are very many scores the points are at about a thousand of them, which lie at quantiles of defect and of
    good pixels; each point is exact. One image is held at a time, and a thousand counts of each.

    Args:
        images: Maps and masks, without NaN, with defect and good pixels.

    Returns:
        `roc`: false-positive rate and recall, rising from (0, 0) to (1, 1); `pr`: recall, rising, and precision; `pro`:
        false-positive rate and mean overlap of regions, as `roc`.
    """
    counts = pixel_histograms(images)
    # (n, k) -> (k,): all images' pixels at or above the lower end of each step, from the highest step down
    tp, fp, overlap = (
        np.cumsum(part.sum(axis=0, dtype=np.float64)[::-1]) for part in (counts.defect, counts.good, counts.overlap)
    )
    flagged = tp + fp > 0
    tp, fp, overlap = tp[flagged], fp[flagged], overlap[flagged]
    recall, alarms = tp / tp[-1], fp / fp[-1]
    share = np.minimum(overlap / counts.regions.sum(dtype=np.float64), 1.0)
    return {
        "roc": (_from_zero(alarms), _from_zero(recall)),
        "pr": (recall, tp / (tp + fp)),
        "pro": (_from_zero(alarms), _from_zero(share)),
    }


def _from_zero(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], values])
