"""Exact metrics from raw scores: one sort serves them all, and what cannot be computed says why."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab.utils.errors import InputError

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


def aupr(scores: ArrayLike, labels: ArrayLike) -> Metric:
    """Average precision, in (0, 1]: precision at each recall step, weighted by the step (no interpolation).

    >>> aupr([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1]).value
    0.8333333333333333
    """
    return curve_aupr(sorted_curve(scores, labels))


def fpr_at_tpr(scores: ArrayLike, labels: ArrayLike, tpr: float = 0.95) -> Metric:
    """Smallest share of good ones flagged by a rule `score >= t` that catches at least `tpr` of the anomalous ones.

    >>> fpr_at_tpr([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1])
    Metric(value=0.5, reason=None)
    """
    return curve_fpr_at_tpr(sorted_curve(scores, labels), tpr)


def curve_auroc(curve: Curve) -> Metric:
    """As `auroc`, from scores already sorted."""
    reason = curve.problem or missing_class(curve.positives.size, curve.negatives.size, needs_good=True)
    if reason:
        return Metric(None, reason)
    # Counted in whole numbers: no rounding however many pixels there are.
    below = int(np.searchsorted(curve.negatives, curve.positives, "left").sum())
    not_above = int(np.searchsorted(curve.negatives, curve.positives, "right").sum())
    return Metric((below + not_above) / (2 * curve.positives.size * curve.negatives.size))


def curve_aupr(curve: Curve) -> Metric:
    """As `aupr`, from scores already sorted."""
    reason = curve.problem or missing_class(curve.positives.size, curve.negatives.size, needs_good=False)
    if reason:
        return Metric(None, reason)
    # Recall moves only at anomalous scores, so no other cut counts.
    first = _first_of_equals(curve.positives)
    values, ties = curve.positives[first], np.diff(first, append=curve.positives.size)
    tp = curve.positives.size - first
    fp = curve.negatives.size - np.searchsorted(curve.negatives, values, "left")
    # one by one, not pairwise: the same sum as over pixels taken in blocks
    return Metric(float(np.cumsum(ties * (tp / (tp + fp)))[-1] / curve.positives.size))


def curve_fpr_at_tpr(curve: Curve, tpr: float = 0.95) -> Metric:
    """As `fpr_at_tpr`, from scores already sorted.

    Raises:
        InputError: `tpr` is not in (0, 1].
    """
    if not 0 < tpr <= 1:
        raise InputError(f"The share of anomalous ones to catch must be in (0, 1], got {tpr}.")
    reason = curve.problem or missing_class(curve.positives.size, curve.negatives.size, needs_good=True)
    if reason:
        return Metric(None, reason)
    caught = caught_at(tpr, curve.positives.size)
    cut = curve.positives[curve.positives.size - caught]
    flagged = curve.negatives.size - int(np.searchsorted(curve.negatives, cut, "left"))
    return Metric(flagged / curve.negatives.size)


def curve_rates_at(curve: Curve, threshold: float | None) -> dict[str, Metric]:
    """TPR, TNR, accuracy, precision and recall, each in [0, 1], of the rule `score > threshold`."""
    reason = curve.problem or no_threshold(threshold)
    return confusion_rates(None if reason or threshold is None else curve_confusion_at(curve, threshold), reason)


def no_threshold(threshold: float | None) -> str | None:
    """Say why nothing can be compared with a threshold; None where it can."""
    if threshold is None:
        return "there is no threshold"
    return "the threshold is NaN" if np.isnan(threshold) else None


def confusion_rates(counts: Confusion | None, reason: str | None = None) -> dict[str, Metric]:
    """TPR, TNR, accuracy, precision and recall, each in [0, 1], of counts; without counts, none with the reason."""
    if counts is None:
        return {name: Metric(None, reason) for name in ("TPR", "TNR", "accuracy", "precision", "recall")}
    tp, fp, fn, tn = counts.tp, counts.fp, counts.fn, counts.tn
    recall = _ratio(tp, tp + fn, missing_class(tp + fn, fp + tn, needs_good=False) or "")
    return {
        "TPR": recall,
        "TNR": _ratio(tn, tn + fp, "there is nothing good among the labelled scores"),
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn, "there are no labelled scores"),
        "precision": _ratio(tp, tp + fp, "nothing is above the threshold"),
        "recall": recall,
    }


def caught_at(tpr: float, anomalous: int) -> int:
    """Return how many of so many anomalous ones a recall of at least `tpr` catches.

    >>> caught_at(0.95, 20)
    19
    """
    return math.ceil(round(tpr * anomalous, 9))  # 0.95 * 20 is 19, whatever its last bit says


def _first_of_equals(ascending: Floats) -> NDArray[np.intp]:
    return np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]])[: ascending.size])


def _ratio(part: int, whole: int, reason: str) -> Metric:
    return Metric(part / whole) if whole else Metric(None, reason)


def curve_f1_max(curve: Curve) -> Metric:
    """As `f1_max`, from scores already sorted."""
    reason = curve.problem or missing_class(curve.positives.size, curve.negatives.size, needs_good=False)
    return Metric(None, reason) if reason else Metric(float(f1_cuts(curve)[1].max()))


def curve_f1_at(curve: Curve, threshold: float | None) -> Metric:
    """As `f1_at`, from scores already sorted."""
    reason = curve.problem or missing_class(curve.positives.size, curve.negatives.size, needs_good=False)
    reason = reason or no_threshold(threshold)
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
    first = _first_of_equals(curve.positives)
    values = curve.positives[first]
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


def missing_class(anomalous: int, good: int, *, needs_good: bool) -> str | None:
    """Say why so many anomalous and good scores are not enough for a metric; None where they are."""
    if not anomalous and not good:
        return "there are no labelled scores"
    if not anomalous:
        return "there is nothing anomalous among the labelled scores"
    if needs_good and not good:
        return "there is nothing good among the labelled scores"
    return None
