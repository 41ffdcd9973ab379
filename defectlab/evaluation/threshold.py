"""Thresholds, the decision of a score against a threshold, and the options of the rules that choose thresholds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from defectlab_runtime.errors import OptionError, unknown_name


@dataclass(frozen=True)
class Threshold:
    """A threshold in raw score units (None if none could be chosen), with its rule, its data source and the reason.

    `rule` is a name of `threshold_rules.RULES`, or "none". `promise` is what the rule says of new images, if anything,
    and `withdrawn` why it does not hold for these images.
    """

    value: float | None
    rule: str
    source: str
    reason: str
    promise: str | None = None
    withdrawn: str | None = None

    @property
    def text(self) -> str:
        """The reason with the promise, or with why there is none."""
        if self.withdrawn is not None:
            return f"{self.reason}; nothing is promised of new images, because {self.withdrawn}"
        return self.reason if self.promise is None else f"{self.reason}; {self.promise}"


def midpoint(low: float, high: float) -> float:
    """Return a number strictly between two distinct scores, the middle where both are finite.

    No number lies between two neighbouring float64: `low` is returned then, and `score > low` still separates them.

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
    """Options of the threshold rules; the rules that use an option are named in parentheses.

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
    """The rule that chooses a model's thresholds at the end of its training, unless the user gives another.

    Attributes:
        rule: Of the image threshold, a key of `RULE_OPTIONS`; where it cannot work, the other models' rule decides.
        options: The rule's options.
        pixel_as_image: Maps have the unit of the image scores, so both are decided at one threshold.
    """

    rule: str = "f1"
    options: RuleOptions = field(default_factory=RuleOptions)
    pixel_as_image: bool = False


def rule_options(rule: str, given: Mapping[str, float | None]) -> RuleOptions:
    """Validate the user's options for a threshold rule and return them; a value of None means not given.

    Raises:
        OptionError: No such rule, an option that this rule does not use, or a value that cannot work.
    """
    _check_rule(rule)
    values = {name: value for name, value in given.items() if value is not None}
    unused = [name for name in values if name not in RULE_OPTIONS[rule]]
    if unused:
        used = ", ".join(RULE_OPTIONS[rule]) or "no options"
        users = "; ".join(
            f"{name} is for {', '.join(r for r, names in RULE_OPTIONS.items() if name in names)}" for name in unused
        )
        raise OptionError(f"Rule {rule} does not use {', '.join(unused)} ({users}). It takes {used}.")
    options = RuleOptions(**values)
    check_options(rule, options)
    return options


def check_options(rule: str, options: RuleOptions) -> None:
    """Validate the name and the options of a threshold rule, before any score is read.

    Raises:
        OptionError: With the value and what is allowed.
    """
    _check_rule(rule)
    values = {name: getattr(options, name) for name in RULE_OPTIONS[rule]}
    missing = [name for name, value in values.items() if value is None]
    if rule == "cost" and missing:
        raise OptionError(
            f"Rule cost needs {', '.join(missing)}: the price of a miss, the price of a false alarm, and the share of "
            "defects on the line (not in the test set)."
        )
    if rule == "manual" and (options.value is None or not math.isfinite(options.value)):
        raise OptionError(f"Rule manual needs value, a finite raw score, got {options.value}.")
    wrong = [f"{name}={value}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise OptionError(f"Rule {rule}: {', '.join(wrong)} must be a finite number.")
    for name in ("false_alarm_rate", "defect_share"):
        if name in values and not 0 < values[name] < 1:
            raise OptionError(f"Rule {rule}: {name} must be between 0 and 1, got {values[name]}.")
    if rule == "recall" and not 0 < options.recall <= 1:
        raise OptionError(f"Rule recall: recall must be in (0, 1], got {options.recall}.")
    if rule == "mean_plus_k_std" and options.k < 0:
        raise OptionError(f"Rule mean_plus_k_std: k must be at least 0, got {options.k}.")
    prices = [values[name] for name in ("miss_cost", "false_alarm_cost") if name in values]
    if prices and (min(prices) < 0 or max(prices) == 0):
        raise OptionError("Rule cost: miss_cost and false_alarm_cost must not be negative, nor both 0.")


def _check_rule(rule: str) -> None:
    if rule not in RULE_OPTIONS:
        raise OptionError(unknown_name("threshold rule", rule, RULE_OPTIONS))
