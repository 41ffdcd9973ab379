"""Exact metrics from raw scores: one sort serves them all, and what cannot be computed says why."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab.errors import InputError

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Metric:
    """A metric's value, or None with the reason why it has none (never 0 in its place)."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Confusion:
    """Counts at a threshold: true and false positives, false and true negatives."""

    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True)
class Curve:
    """Scores of the anomalous and of the good, each ascending, in the type they came in.

    `problem` says why no metric can be computed from them (NaN), else None.
    """

    positives: Floats
    negatives: Floats
    problem: str | None = None


def sorted_curve(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """Sort scores of any shape once, apart by label: 1 or True anomalous, 0 or False good, -1 unknown (left out).

    float32 stays float32; other types become float64. Infinite scores are ordered as numbers are.

    Raises:
        InputError: If scores and labels differ in shape, or a label is none of -1, 0, 1.
    """
    values = np.asarray(scores)
    values = values if values.dtype == np.float32 else values.astype(np.float64)
    anomalous, good = _split(np.asarray(labels), values.shape)
    positives, negatives = np.sort(values[anomalous]), np.sort(values[good])
    # NaN sorts last, so the ends tell.
    missing = sum(int(np.isnan(part).sum()) for part in (positives, negatives) if part.size and np.isnan(part[-1]))
    problem = f"{missing} of {positives.size + negatives.size} scores are NaN" if missing else None
    return Curve(positives, negatives, problem)


def _split(labels: NDArray[np.generic], shape: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if labels.shape != shape:
        raise InputError(f"Scores and labels must have one shape, got {shape} and {labels.shape}.")
    if labels.dtype == np.bool_:
        anomalous = np.asarray(labels, dtype=np.bool_)
        return anomalous, ~anomalous
    anomalous, good = labels == 1, labels == 0
    if not bool(np.all(anomalous | good | (labels == -1))):
        raise InputError("Labels must be 0 (good), 1 (anomalous) or -1 (unknown).")
    return anomalous, good


def auroc(scores: ArrayLike, labels: ArrayLike) -> Metric:
    """Area under the ROC curve, in [0, 1]; a tie between a good and an anomalous score counts half.

    >>> auroc([1.0, 3.0, 2.0, 4.0], [0, 0, 1, 1])
    Metric(value=0.75, reason=None)
    """
    return curve_auroc(sorted_curve(scores, labels))


def f1_max(scores: ArrayLike, labels: ArrayLike) -> Metric:
    """Highest F1 that any threshold reaches, in (0, 1].

    >>> f1_max([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1])
    Metric(value=1.0, reason=None)
    """
    return curve_f1_max(sorted_curve(scores, labels))


def f1_at(scores: ArrayLike, labels: ArrayLike, threshold: float | None) -> Metric:
    """F1, in [0, 1], of the rule `score > threshold`.

    >>> f1_at([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1], 2.5)
    Metric(value=0.5, reason=None)
    """
    return curve_f1_at(sorted_curve(scores, labels), threshold)


def confusion_at(scores: ArrayLike, labels: ArrayLike, threshold: float) -> Confusion:
    """Counts of the rule `score > threshold`; a NaN score counts as above every threshold.

    >>> confusion_at([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1], 2.5)
    Confusion(tp=1, fp=1, fn=1, tn=1)
    """
    return curve_confusion_at(sorted_curve(scores, labels), threshold)


def curve_auroc(curve: Curve) -> Metric:
    """As `auroc`, from scores already sorted."""
    reason = curve.problem or _missing_class(curve, needs_good=True)
    if reason:
        return Metric(None, reason)
    # Counted in whole numbers: no rounding however many pixels there are.
    below = int(np.searchsorted(curve.negatives, curve.positives, "left").sum())
    not_above = int(np.searchsorted(curve.negatives, curve.positives, "right").sum())
    return Metric((below + not_above) / (2 * curve.positives.size * curve.negatives.size))


def curve_f1_max(curve: Curve) -> Metric:
    """As `f1_max`, from scores already sorted."""
    reason = curve.problem or _missing_class(curve, needs_good=False)
    return Metric(None, reason) if reason else Metric(float(f1_cuts(curve)[1].max()))


def curve_f1_at(curve: Curve, threshold: float | None) -> Metric:
    """As `f1_at`, from scores already sorted."""
    reason = curve.problem or _missing_class(curve, needs_good=False)
    if threshold is None:
        reason = reason or "there is no threshold"
    elif np.isnan(threshold):
        reason = reason or "the threshold is NaN"
    if reason or threshold is None:
        return Metric(None, reason)
    counts = curve_confusion_at(curve, threshold)
    return Metric(2 * counts.tp / (2 * counts.tp + counts.fp + counts.fn))


def curve_confusion_at(curve: Curve, threshold: float) -> Confusion:
    """As `confusion_at`, from scores already sorted."""
    fn, tn = _count_up_to(curve.positives, threshold), _count_up_to(curve.negatives, threshold)
    return Confusion(tp=curve.positives.size - fn, fp=curve.negatives.size - tn, fn=fn, tn=tn)


def f1_cuts(curve: Curve) -> tuple[Floats, Floats]:
    """Distinct anomalous scores, descending, and the F1 of flagging all scores from there up.

    No other cut can do better: lowering it further, down to the next anomalous score, only adds false alarms.
    """
    values, first = np.unique(curve.positives, return_index=True)
    tp = curve.positives.size - first
    fp = curve.negatives.size - np.searchsorted(curve.negatives, values, "left")
    f1 = 2 * tp / (tp + fp + curve.positives.size)
    return values[::-1], f1[::-1]


def round_down(threshold: float, dtype: type[np.floating]) -> np.floating:
    """Return the largest number of a type not above a threshold: it splits that type's scores where the threshold does.

    Rounding to the nearest could land on a score just above the threshold, which would then count as good.
    """
    with np.errstate(over="ignore"):  # beyond the type it becomes infinite, which the next step undoes
        nearest = dtype(threshold)
    # Compared as float64: numpy would round the threshold to the type first and find them equal.
    return nearest if float(nearest) <= threshold else np.nextafter(nearest, dtype(-np.inf))


def _count_up_to(ascending: Floats, threshold: float) -> int:
    """Number of scores that are at most the threshold."""
    limit = round_down(threshold, ascending.dtype.type)
    return int(np.searchsorted(ascending, limit, "right"))


def _missing_class(curve: Curve, *, needs_good: bool) -> str | None:
    if not curve.positives.size and not curve.negatives.size:
        return "there are no labelled scores"
    if not curve.positives.size:
        return "there is nothing anomalous among the labelled scores"
    if needs_good and not curve.negatives.size:
        return "there is nothing good among the labelled scores"
    return None


def evaluate(
    image_scores: ArrayLike,
    image_labels: ArrayLike,
    maps: Floats | None = None,
    masks: NDArray[np.bool_] | None = None,
    *,
    image_threshold: float | None,
    pixel_threshold: float | None,
) -> dict[str, Metric]:
    """Compute the four metrics of a run from raw scores (n,), labels (n,), maps (n, H, W) and masks (n, H, W).

    Images labelled -1 (unknown) are left out, with their maps.

    Raises:
        InputError: If the shapes do not fit one another.
    """
    labels = np.asarray(image_labels)
    image = sorted_curve(image_scores, labels)
    pixel = pixel_curve(maps, masks, labels)
    return {
        "image_AUROC": curve_auroc(image),
        "image_F1Score": curve_f1_at(image, image_threshold),
        "pixel_AUROC": curve_auroc(pixel),
        "pixel_F1Score": curve_f1_at(pixel, pixel_threshold),
    }


def pixel_curve(maps: Floats | None, masks: NDArray[np.bool_] | None, labels: NDArray[np.integer]) -> Curve:
    """Sort the pixels of the images whose label is known; the curve's problem says if maps or masks are missing."""
    if maps is None or masks is None:
        none = np.empty(0, dtype=np.float32)
        return Curve(none, none, "there are no anomaly maps" if maps is None else "there are no masks")
    if maps.shape != masks.shape or len(maps) != len(labels):
        raise InputError(
            f"Maps and masks must be (n, H, W) alike with n the number of labels, "
            f"got {maps.shape}, {masks.shape} and {len(labels)} labels."
        )
    known = labels >= 0
    if not bool(known.all()):
        maps, masks = maps[known], masks[known]
    return sorted_curve(maps, masks.astype(np.bool_, copy=False))
