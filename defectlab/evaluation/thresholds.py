"""Thresholds chosen from validation scores. A score is anomalous when it is above the threshold, not at it."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from defectlab.evaluation.metrics import Curve, Floats, f1_cuts, round_down, sorted_curve

Rule = str  # a name of `rules.RULES`, or "none"


@dataclass(frozen=True)
class Threshold:
    """A threshold in raw score units (None: none could be chosen), the rule it came from, on what data, and why."""

    value: float | None
    rule: Rule
    source: str
    reason: str


def decision(score: float, threshold: float | None) -> int:
    """Return 1 for a score above a threshold, 0 for one that is not, -1 where there is none or the score is NaN.

    >>> decision(2.0, 1.0), decision(1.0, 1.0), decision(float("nan"), 1.0), decision(1.0, None)
    (1, 0, -1, -1)
    """
    return -1 if threshold is None or math.isnan(score) else int(score > threshold)


def f1_threshold(scores: ArrayLike, labels: ArrayLike, *, source: str = "validation") -> Threshold:
    """Choose the threshold that maximises F1, halfway between two neighbouring distinct scores.

    Flagging everything is a candidate too, just below the smallest score. Where several thresholds reach the same F1
    the highest wins: the fewest alarms. Labels as in `sorted_curve`.

    >>> f1_threshold([1.0, 2.0, 3.0, 5.0], [0, 0, 1, 1]).value
    2.5
    """
    return _f1_from_curve(sorted_curve(scores, labels), "scores", source)


def good_max_threshold(good_scores: ArrayLike, *, source: str = "validation") -> Threshold:
    """Choose the next float64 above the largest score of held-out good images: none of these would raise an alarm.

    >>> good_max_threshold([0.5, 2.0]).value > 2.0
    True
    """
    values = np.asarray(good_scores)
    if not values.size:
        return Threshold(None, "none", source, "there are no good scores to choose from")
    largest = float(values.max())
    if math.isnan(largest):
        return Threshold(None, "none", source, "some of the good scores are NaN")
    if largest == math.inf:
        return Threshold(None, "none", source, "a good score is infinite: nothing lies above it")
    return Threshold(
        math.nextafter(largest, math.inf), "good_max", source, f"just above the largest of {values.size} good scores"
    )


def choose_image_threshold(scores: ArrayLike, labels: ArrayLike, *, source: str = "validation") -> Threshold:
    """Choose by F1 where good and anomalous images are present, above the largest score where only good ones are."""
    curve = sorted_curve(scores, labels)
    if curve.positives.size and curve.negatives.size:
        return _f1_from_curve(curve, "images", source)
    if curve.positives.size:
        return Threshold(None, "none", source, f"{source} has anomalous images only: nothing says what is good")
    return _good_only(curve.negatives, "has no anomalous images", source)


def _good_only(good: Floats, lack: str, source: str) -> Threshold:
    chosen = good_max_threshold(good, source=source)
    return Threshold(chosen.value, chosen.rule, source, f"{source} {lack}; {chosen.reason}")


def _f1_from_curve(curve: Curve, unit: str, source: str) -> Threshold:
    if curve.problem:
        return Threshold(None, "none", source, curve.problem)
    values, f1 = f1_cuts(curve)
    usable = values > -np.inf  # no number lies below -inf: such scores cannot be flagged
    values, f1 = values[usable], f1[usable]
    if not values.size:
        lack = "all anomalous ones score -inf" if curve.positives.size else "none is anomalous"
        return Threshold(None, "none", source, f"no F1 over the {unit} of {source}: {lack}")
    best = int(f1.argmax())  # the first of equals: cuts descend
    below = max((float(part[i - 1]) for part, i in _places(curve, values[best]) if i), default=None)
    anomalous, good = curve.positives.size, curve.negatives.size
    counts = f"{anomalous} anomalous and {good} good {unit} of {source}"
    return between(float(values[best]), below, float(f1[best]), counts, source)


def between(value: float, below: float | None, f1: float, counts: str, source: str) -> Threshold:
    """Return the F1 threshold halfway between the lowest score to flag and the next lower one; None: there is none."""
    threshold = math.nextafter(value, -math.inf) if below is None else midpoint(below, value)
    return Threshold(threshold, "f1", source, f"highest F1 ({f1:.4f}) over {counts}")


def _places(curve: Curve, value: np.floating) -> list[tuple[Floats, int]]:
    """Where `value` would be inserted into each class's scores: all before it are smaller."""
    return [(part, int(np.searchsorted(part, value, "left"))) for part in (curve.positives, curve.negatives)]


def below32(threshold: float) -> float:
    """Return the largest float32 not above a threshold: float32 scores compare with it as with the threshold itself.

    >>> below32(0.1) <= 0.1 < float(np.nextafter(np.float32(below32(0.1)), np.float32(1)))
    True
    """
    return float(round_down(threshold, np.float32))


def midpoint(low: float, high: float) -> float:
    """Return a number strictly between two distinct scores, the middle where both are finite.

    Two neighbouring float64 have none between them: then `low`, at which `score > threshold` still parts them.

    >>> midpoint(1.0, 2.0)
    1.5
    """
    middle = 0.0 if low == -math.inf and high == math.inf else low / 2 + high / 2
    if low < middle < high:
        return middle
    if math.isinf(high):
        middle = math.nextafter(low, math.inf)
    elif math.isinf(low):
        middle = math.nextafter(high, -math.inf)
    return middle if low < middle < high else low
