"""Exact metrics from raw scores: the scores are sorted once, and an undefined metric carries the reason."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab_runtime.decision import round_down
from defectlab_runtime.errors import InputError

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Metric:
    """The value of a metric, or None with the reason why the metric is undefined (never 0 instead)."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Confusion:
    """Confusion counts at a threshold: true and false positives, false and true negatives."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def f1(self) -> float:
        """F1 score of the counts, which must not all be true negatives."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn)


@dataclass(frozen=True)
class SortedScores:
    """Scores of anomalous and of good items, each in ascending order, float32 or float64.

    `problem` is the reason why no metric can be computed from the scores (some are not finite), else None.
    """

    positives: Floats
    negatives: Floats
    problem: str | None = None

    def undefined(self, *, needs_good: bool) -> str | None:
        """Return why a metric is undefined on these scores, or None if it is defined."""
        return self.problem or missing_class(self.positives.size, self.negatives.size, needs_good=needs_good)


def sort_scores(scores: ArrayLike, labels: ArrayLike, *, allow_infinite: bool = False) -> SortedScores:
    """Split scores of any shape by label and sort them: 1 or True anomalous, 0 or False good, -1 unknown (left out).

    float32 stays float32; other types become float64. A score that is NaN or infinite is a `problem`: a model that
    gives one has failed on that image, and the order of the others says nothing of it. With `allow_infinite` infinite
    scores are ordered as numbers are, as the pixels outside an evaluated region need.

    Raises:
        InputError: If scores and labels differ in shape, or a label is none of -1, 0, 1.
    """
    values = np.asarray(scores)
    values = values if values.dtype == np.float32 else values.astype(np.float64)
    anomalous, good = _split(np.asarray(labels), values.shape)
    positives, negatives = np.sort(values[anomalous]), np.sort(values[good])
    return SortedScores(positives, negatives, _problem((positives, negatives), allow_infinite))


def _problem(sorted_parts: Sequence[Floats], allow_infinite: bool) -> str | None:
    """Return how many of all scores are not finite, None if all are; the ends of a sorted array tell, NaN is last."""
    parts = [part for part in sorted_parts if part.size]
    nan = sum(int(np.isnan(part).sum()) for part in parts if np.isnan(part[-1]))
    ends = np.array([end for part in parts for end in (part[0], part[-1])])
    infinite = 0 if allow_infinite or np.isfinite(ends).all() else sum(int(np.isinf(part).sum()) for part in parts)
    counts = [f"{count} {name}" for count, name in ((nan, "NaN"), (infinite, "infinite")) if count]
    total = sum(part.size for part in parts)
    return f"{nan + infinite} of {total} scores are not finite ({' and '.join(counts)})" if counts else None


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


def auroc(scores: SortedScores) -> Metric:
    """Return the area under the ROC curve, in [0, 1]; a tie between a good and an anomalous score counts half.

    >>> auroc(sort_scores([1.0, 3.0, 2.0, 4.0], [0, 0, 1, 1]))
    Metric(value=0.75, reason=None)
    """
    reason = scores.undefined(needs_good=True)
    if reason:
        return Metric(None, reason)
    # Counted in whole numbers: no rounding however many pixels there are.
    below = int(np.searchsorted(scores.negatives, scores.positives, "left").sum())
    not_above = int(np.searchsorted(scores.negatives, scores.positives, "right").sum())
    return Metric((below + not_above) / (2 * scores.positives.size * scores.negatives.size))


def aupr(scores: SortedScores) -> Metric:
    """Return the average precision, in (0, 1]: precision at each recall step, weighted by the step, not interpolated.

    >>> aupr(sort_scores([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1])).value
    0.8333333333333333
    """
    reason = scores.undefined(needs_good=False)
    if reason:
        return Metric(None, reason)
    _, tp, fp = _cuts(scores)
    ties = -np.diff(tp, append=0)
    # one by one, not pairwise: the same sum as over pixels taken in blocks
    return Metric(float(np.cumsum(ties * (tp / (tp + fp)))[-1] / scores.positives.size))


def fpr_at_tpr(scores: SortedScores, tpr: float = 0.95) -> Metric:
    """Return the lowest false-positive rate of a rule `score >= t` whose true-positive rate is at least `tpr`.

    >>> fpr_at_tpr(sort_scores([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1]))
    Metric(value=0.5, reason=None)

    Raises:
        InputError: `tpr` is not in (0, 1].
    """
    if not 0 < tpr <= 1:
        raise InputError(f"The share of anomalous ones to catch must be in (0, 1], got {tpr}.")
    reason = scores.undefined(needs_good=True)
    if reason:
        return Metric(None, reason)
    cut = scores.positives[scores.positives.size - count_for_recall(tpr, scores.positives.size)]
    flagged = scores.negatives.size - int(np.searchsorted(scores.negatives, cut, "left"))
    return Metric(flagged / scores.negatives.size)


def f1_max(scores: SortedScores) -> Metric:
    """Return the highest F1 that any threshold reaches, in (0, 1].

    >>> f1_max(sort_scores([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1]))
    Metric(value=1.0, reason=None)
    """
    reason = scores.undefined(needs_good=False)
    return Metric(None, reason) if reason else Metric(float(f1_curve(scores)[1].max()))


def f1_at(scores: SortedScores, threshold: float | None) -> Metric:
    """Return the F1, in [0, 1], of the rule `score > threshold`.

    >>> f1_at(sort_scores([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1]), 2.5)
    Metric(value=0.5, reason=None)
    """
    reason = scores.undefined(needs_good=False) or threshold_problem(threshold)
    if reason or threshold is None:
        return Metric(None, reason)
    return Metric(confusion_at(scores, threshold).f1)


def rates_at(scores: SortedScores, threshold: float | None) -> dict[str, Metric]:
    """Return TPR, TNR, accuracy, precision and recall, each in [0, 1], of the rule `score > threshold`."""
    reason = scores.problem or threshold_problem(threshold)
    return confusion_rates(None if reason or threshold is None else confusion_at(scores, threshold), reason)


def confusion_at(scores: SortedScores, threshold: float) -> Confusion:
    """Return the confusion counts of the rule `score > threshold`; a NaN score counts as above every threshold.

    >>> confusion_at(sort_scores([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1]), 2.5)
    Confusion(tp=1, fp=1, fn=1, tn=1)
    """
    fn, tn = (
        int(np.searchsorted(ascending, round_down(threshold, ascending.dtype.type), "right"))
        for ascending in (scores.positives, scores.negatives)
    )
    return Confusion(tp=scores.positives.size - fn, fp=scores.negatives.size - tn, fn=fn, tn=tn)


def confusion_rates(counts: Confusion | None, reason: str | None = None) -> dict[str, Metric]:
    """Return TPR, TNR, accuracy, precision and recall, each in [0, 1], of counts; undefined if `counts` is None."""
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


def f1_curve(scores: SortedScores) -> tuple[Floats, Floats]:
    """Return the distinct anomalous scores, descending, and the F1 of flagging all scores from each one up.

    No other cut has a higher F1: lowering a cut towards the next anomalous score only adds false alarms.
    """
    values, tp, fp = _cuts(scores)
    return values[::-1], (2 * tp / (tp + fp + scores.positives.size))[::-1]


def _cuts(scores: SortedScores) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Return the distinct anomalous scores, ascending, with the true and false positives of `score >= value`."""
    values, first = np.unique(scores.positives, return_index=True)
    fp = scores.negatives.size - np.searchsorted(scores.negatives, values, "left")
    return values, scores.positives.size - first, fp


def trivial_f1(labels: ArrayLike) -> float | None:
    """Return the F1 of calling every image anomalous, which any useful detector must exceed; None without anomalous.

    >>> trivial_f1([1, 1, 1, 0])
    0.8571428571428571
    """
    known = np.asarray(labels)
    bad, good = int((known == 1).sum()), int((known == 0).sum())
    return 2 * bad / (2 * bad + good) if bad else None


def prevalence(labels: ArrayLike) -> float | None:
    """Return the share of anomalous images, the AUPR of an uninformative detector; None without labelled images.

    >>> prevalence([1, 1, 1, 0])
    0.75
    """
    known = np.asarray(labels)
    count = int((known >= 0).sum())
    return int((known == 1).sum()) / count if count else None


def count_for_recall(recall: float, total: int) -> int:
    """Return how many of `total` anomalous items must be flagged to reach at least the given recall.

    >>> count_for_recall(0.95, 20)
    19
    """
    return math.ceil(round(recall * total, 9))  # 0.95 * 20 is 19, whatever its last bit says


def threshold_problem(threshold: float | None) -> str | None:
    """Return why scores cannot be compared with a threshold (missing or NaN), or None if they can."""
    if threshold is None:
        return "there is no threshold"
    return "the threshold is NaN" if np.isnan(threshold) else None


def missing_class(anomalous: int, good: int, *, needs_good: bool) -> str | None:
    """Return why these counts of anomalous and good scores do not suffice for a metric, or None if they do."""
    if not anomalous and not good:
        return "there are no labelled scores"
    if not anomalous:
        return "there is nothing anomalous among the labelled scores"
    if needs_good and not good:
        return "there is nothing good among the labelled scores"
    return None


def _ratio(part: int, whole: int, reason: str) -> Metric:
    return Metric(part / whole) if whole else Metric(None, reason)


def stored_threshold(value: float | None) -> float:
    """Return a raw threshold as a model stores it: the float32 that decides alike, NaN for none."""
    return float("nan") if value is None else float(round_down(value))
