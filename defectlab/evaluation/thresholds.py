"""Thresholds chosen from validation scores. A score is anomalous when it is above the threshold, not at it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from defectlab.evaluation.metrics import Curve, Floats, f1_cuts, round_down, sorted_curve
from defectlab.utils.errors import OptionError, unknown_name

Rule = str  # a name of `threshold_rules.RULES`, or "none"


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


# rule -> the options it uses
RULE_OPTIONS: dict[str, tuple[str, ...]] = {
    "f1": (),
    "good_max": (),
    "mean_of_means": (),
    "mean_plus_k_std": ("k",),
    "quantile": ("false_alarm_rate",),
    "conformal": ("false_alarm_rate",),
    "recall": ("recall",),
    "cost": ("miss_cost", "false_alarm_cost", "defect_share"),
    "manual": ("value",),
}


@dataclass(frozen=True)
class RuleOptions:
    """What the rules can be told; each names the rules that use it.

    Attributes:
        k: Standard deviations above the mean, at least 0 (mean_plus_k_std).
        false_alarm_rate: Share of good images that may be flagged, in (0, 1) (quantile, conformal).
        recall: Share of defects to catch, in (0, 1] (recall).
        miss_cost: Price of a defect that passes (cost).
        false_alarm_cost: Price of a good part that is flagged, in the same unit (cost).
        defect_share: Share of defects on the line, in (0, 1) (cost).
        value: The threshold itself, raw (manual).
    """

    k: float = 3.0
    false_alarm_rate: float = 0.01
    recall: float = 0.95
    miss_cost: float | None = None
    false_alarm_cost: float | None = None
    defect_share: float | None = None
    value: float | None = None


@dataclass(frozen=True)
class DefaultRule:
    """How a model's thresholds are chosen at the end of its training, where the user says nothing.

    Attributes:
        rule: Of the image threshold, a key of `RULE_OPTIONS`; where it cannot work, the other models' rule decides.
        options: What the rule is told.
        pixel_as_image: Maps have the unit of the image scores, so both are decided at one threshold.
    """

    rule: str = "f1"
    options: RuleOptions = field(default_factory=RuleOptions)
    pixel_as_image: bool = False


def rule_options(rule: str, given: Mapping[str, float | None]) -> RuleOptions:
    """Return the options of a rule as a person gave them, checked; None means not given.

    Raises:
        OptionError: No such rule, an option that this rule does not use, or a value that cannot work.
    """
    check_rule(rule)
    told = {name: value for name, value in given.items() if value is not None}
    unused = [name for name in told if name not in RULE_OPTIONS[rule]]
    if unused:
        listens = ", ".join(RULE_OPTIONS[rule]) or "no options"
        users = "; ".join(
            f"{name} is for {', '.join(r for r, names in RULE_OPTIONS.items() if name in names)}" for name in unused
        )
        raise OptionError(f"Rule {rule} does not use {', '.join(unused)} ({users}). It takes {listens}.")
    options = RuleOptions(**told)
    check_options(rule, options)
    return options


def check_rule(rule: str) -> None:
    """Refuse a name that is no rule.

    Raises:
        OptionError: With the closest name.
    """
    if rule not in RULE_OPTIONS:
        raise OptionError(unknown_name("threshold rule", rule, RULE_OPTIONS))


def check_options(rule: str, options: RuleOptions) -> None:
    """Refuse values that cannot work, before any score is read.

    Raises:
        OptionError: With the value and what is allowed.
    """
    check_rule(rule)
    told = {name: getattr(options, name) for name in RULE_OPTIONS[rule]}
    missing = [name for name, value in told.items() if value is None]
    if rule == "cost" and missing:
        raise OptionError(
            f"Rule cost needs {', '.join(missing)}: the price of a miss, the price of a false alarm, and the share of "
            "defects on the line (not in the test set)."
        )
    if rule == "manual" and (options.value is None or not math.isfinite(options.value)):
        raise OptionError(f"Rule manual needs value, a finite raw score, got {options.value}.")
    wrong = [f"{name}={value}" for name, value in told.items() if not math.isfinite(value)]
    if wrong:
        raise OptionError(f"Rule {rule}: {', '.join(wrong)} must be a finite number.")
    for name in ("false_alarm_rate", "defect_share"):
        if name in told and not 0 < told[name] < 1:
            raise OptionError(f"Rule {rule}: {name} must be between 0 and 1, got {told[name]}.")
    if rule == "recall" and not 0 < options.recall <= 1:
        raise OptionError(f"Rule recall: recall must be in (0, 1], got {options.recall}.")
    if rule == "mean_plus_k_std" and options.k < 0:
        raise OptionError(f"Rule mean_plus_k_std: k must be at least 0, got {options.k}.")
    prices = [told[name] for name in ("miss_cost", "false_alarm_cost") if name in told]
    if prices and (min(prices) < 0 or max(prices) == 0):
        raise OptionError("Rule cost: miss_cost and false_alarm_cost must not be negative, nor both 0.")
