"""Area under the per-region overlap curve (Bergmann et al., 2021, "The MVTec Anomaly Detection Dataset"), exact.

At each threshold: the mean, over all connected regions of ground truth in all images, of the share of the region that
is flagged, against the share of good pixels flagged. The area up to a false-positive rate, divided by that rate.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from defectlab.errors import InputError
from defectlab.evaluation.metrics import Curve, Floats, Metric, sorted_curve

FPR_LIMIT = 0.3
MOST_POINTS = 400  # of a drawn curve; more cannot be seen
_NEIGHBOURS = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner are one region


def aupro(maps: Floats, masks: NDArray[np.bool_], fpr_limit: float = FPR_LIMIT) -> Metric:
    """Return AUPRO, in [0, 1], of maps (n, H, W) and masks (n, H, W).

    Raises:
        InputError: The shapes differ, or the limit is not in (0, 1].
    """
    if maps.shape != masks.shape:
        raise InputError(f"Maps and masks must be (n, H, W) alike, got {maps.shape} and {masks.shape}.")
    return curve_aupro(sorted_curve(maps, masks.astype(np.bool_, copy=False)), maps, masks, fpr_limit)


def curve_aupro(curve: Curve, maps: Floats, masks: NDArray[np.bool_], fpr_limit: float = FPR_LIMIT) -> Metric:
    """As `aupro`, with the pixels already sorted.

    Raises:
        InputError: The limit is not in (0, 1].
    """
    if not 0 < fpr_limit <= 1:
        raise InputError(f"The limit of the false-positive rate must be in (0, 1], got {fpr_limit}.")
    if curve.problem:
        return Metric(None, curve.problem)
    if not curve.positives.size or not curve.negatives.size:
        lack = "anomalous" if not curve.positives.size else "good"
        return Metric(None, f"there is no {lack} pixel among the labelled ones")
    scores, weights = region_pixels(maps, masks)
    order = np.argsort(scores, kind="stable")
    # overlap[i]: mean overlap of flagging all but the i lowest defect pixels
    overlap = np.concatenate([np.cumsum(weights[order][::-1])[::-1], [0.0]])
    ascending = scores[order]

    good = curve.negatives.size
    wanted = fpr_limit * good
    top = curve.negatives[max(good - int(np.ceil(wanted)), 0) :]
    # ties with the lowest of these belong to the same step of the curve
    top = curve.negatives[int(np.searchsorted(curve.negatives, top[0], "left")) :]
    values, ties = np.unique(top, return_counts=True)
    values, ties = values[::-1], ties[::-1].astype(np.float64)
    before = overlap[np.searchsorted(ascending, values, "right")]  # flagged: above the value
    after = overlap[np.searchsorted(ascending, values, "left")]  # flagged: the value and above
    flagged = np.concatenate([[0.0], np.cumsum(ties)])
    share = np.clip((wanted - flagged[:-1]) / ties, 0.0, 1.0)  # of each step, how much lies below the limit
    end = before + (after - before) * share
    area = float((ties * share * (before + end) / 2).sum())
    return Metric(min(area / wanted, 1.0))


def region_pixels(maps: Floats, masks: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.float64]]:
    """Return the scores of all defect pixels, and the weight of each: 1 / (its region's size * number of regions)."""
    scores, weights = [], []
    regions = 0
    for anomaly_map, mask in zip(maps, masks, strict=True):
        if not mask.any():
            continue
        labels, count = ndimage.label(mask, structure=_NEIGHBOURS)
        inside = labels[mask]
        sizes = np.bincount(inside, minlength=count + 1)
        scores.append(anomaly_map[mask])
        weights.append(1.0 / sizes[inside])
        regions += count
    return np.concatenate(scores), np.concatenate(weights) / regions


def pro_points(
    maps: Floats, masks: NDArray[np.bool_], limit: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the per-region overlap curve for drawing: false-positive rates, rising from 0 to `limit`, and overlaps.

    Where there are very many thresholds a sample is kept: dense at low rates, where the curve bends. The last point is
    interpolated to lie at the limit.

    Args:
        maps: (n, H, W) raw anomaly maps.
        masks: (n, H, W), True where a defect is.
        limit: Largest false-positive rate, in (0, 1].

    Returns:
        Both (k,), in [0, 1]; empty where there is no curve: no defect pixel, no good pixel, or NaN.

    Raises:
        InputError: The shapes differ, or the limit is not in (0, 1].
    """
    if maps.shape != masks.shape:
        raise InputError(f"Maps and masks must be (n, H, W) alike, got {maps.shape} and {masks.shape}.")
    if not 0 < limit <= 1:
        raise InputError(f"The limit of the false-positive rate must be in (0, 1], got {limit}.")
    curve = sorted_curve(maps, masks.astype(np.bool_, copy=False))
    if curve.problem or not curve.positives.size or not curve.negatives.size:
        return np.empty(0), np.empty(0)
    scores, weights = region_pixels(maps, masks)
    order = np.argsort(scores, kind="stable")
    overlap = np.concatenate([np.cumsum(weights[order][::-1])[::-1], [0.0]])
    cuts = _drawn_cuts(curve)
    fpr = 1 - np.searchsorted(curve.negatives, cuts, "left") / curve.negatives.size
    pro = np.minimum(overlap[np.searchsorted(scores[order], cuts, "left")], 1.0)
    fpr, pro = np.concatenate([[0.0], fpr]), np.concatenate([[0.0], pro])
    inside = fpr <= limit
    last = int(inside.sum())
    if fpr[last - 1] < limit:  # then there is a point beyond: the lowest cut flags every pixel
        share = (limit - fpr[last - 1]) / (fpr[last] - fpr[last - 1])
        end = pro[last - 1] + share * (pro[last] - pro[last - 1])
        return np.append(fpr[:last], limit), np.append(pro[:last], end)
    return fpr[:last], pro[:last]


def _drawn_cuts(curve: Curve) -> Floats:
    """Return distinct scores, descending: all where they are few, else a sample dense at the highest of both kinds."""
    if curve.positives.size + curve.negatives.size <= 4 * MOST_POINTS:
        return np.unique(np.concatenate([curve.positives, curve.negatives]))[::-1]
    shares = np.concatenate([np.linspace(0, 1, MOST_POINTS // 2), 1 - np.geomspace(1e-6, 1, MOST_POINTS // 2)])
    places = [part[np.round(shares * (part.size - 1)).astype(int)] for part in (curve.positives, curve.negatives)]
    return np.unique(np.concatenate([*places, curve.positives[:1], curve.negatives[:1]]))[::-1]
