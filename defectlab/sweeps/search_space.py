"""The space of a sweep: lists and ranges of options, and their expansion into combinations. Imports no torch."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defectlab.utils.validation import check_option_names
from defectlab_runtime.errors import OptionError

MAX_VALUES = 100_000  # of a range
# Options whose value is a list: a list of plain values is one value, and choices are lists of lists.
LIST_OPTIONS = {
    *("model.layers", "model.image_size", "model.center_crop", "evaluation.pixel_size", "data.extensions"),
    *("data.abnormal_dir", "data.mask_dir", "data.normal_dir", "data.normal_test_dir", "data.crop_area"),
    *("data.normal_val_dir", "data.abnormal_val_dir", "data.val_mask_dir", "data.unknown_dir", "data.k_shots"),
    *("model.hidden", "model.beta", "trainer.devices"),
}


@dataclass(frozen=True)
class Choices:
    """An option that takes one of several values."""

    values: tuple[Any, ...]

    @property
    def count(self) -> int:
        """The number of values."""
        return len(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included, in steps of `step`; integers if all three are integers.

    With `log` a search draws small ones as often as large ones, by their logarithm.
    """

    low: float
    high: float
    step: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether the values of the range are integers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step))

    @property
    def count(self) -> int:
        """The number of values."""
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    @property
    def values(self) -> tuple[float, ...]:
        """All values of the range, in ascending order."""
        numbers = (self.low + index * self.step for index in range(self.count))
        return tuple(round(number) if self.whole else float(f"{number:.12g}") for number in numbers)


@dataclass(frozen=True)
class Interval:
    """A continuous interval from `low` to `high`, for a search; with `log` its logarithm is drawn uniformly."""

    low: float
    high: float
    log: bool = False

    @property
    def values(self) -> tuple[float, ...]:
        """Raise an error, since an interval has no finite list of values as a grid needs it.

        Raises:
            OptionError: Always.
        """
        raise OptionError(
            f"From {self.low} to {self.high} without a step are endlessly many values: a grid needs `step`, a search "
            "(section `search`) does not."
        )

    @property
    def count(self) -> int:
        """Raise the error of `values`."""
        return len(self.values)


Options = Choices | Range | Interval
Space = Sequence[Mapping[str, Options]]  # subspaces, each with the options of its own models


def options_of(name: str, value: Any) -> Options:
    """Parse the value of the option `name` in a sweep's file as choices, a range or an interval.

    A list is choices; of an option that is a list itself (`model.layers`), a list of lists is. `{from: 10, to: 500,
    step: 10}` is a range, without `step` an interval for a search, with `log: true` drawn by the logarithm;
    `{choices: [...]}` says choices of anything; every other value is the only choice.

    Raises:
        OptionError: An empty list or a range that is none.

    >>> options_of("model.layers", ["layer2", "layer3"]).values
    (['layer2', 'layer3'],)
    >>> options_of("model.n_features", {"from": 50, "to": 150, "step": 50}).values
    (50, 100, 150)
    """
    if isinstance(value, Mapping) and "choices" in value:
        check_option_names(value, ["choices"], f"The choices of {name}")
        return _choices(name, value["choices"])
    if isinstance(value, Mapping) and ("from" in value or "to" in value):
        return _range(name, value)
    if name in LIST_OPTIONS:
        plain = not isinstance(value, list) or not any(isinstance(item, list) for item in value)
        return Choices((value,)) if plain else _choices(name, value)
    return _choices(name, value) if isinstance(value, list) else Choices((value,))


def _choices(name: str, values: Any) -> Choices:
    if not isinstance(values, list) or not values:
        raise OptionError(f"{name}: the choices must be a list of at least one value, got {values!r}.")
    return Choices(tuple(values))


def _range(name: str, value: Mapping[str, Any]) -> Range | Interval:
    check_option_names(value, ["from", "to", "step", "log"], f"The range of {name}")
    low, high = (_number(name, value, key) for key in ("from", "to"))
    step = _number(name, value, "step") if value.get("step") is not None else None
    log = value.get("log", False)
    if low > high or (step is not None and step <= 0):
        raise OptionError(f"{name}: from must be at most to, and step above 0; got {dict(value)}.")
    if not isinstance(log, bool) or (log and low <= 0):
        raise OptionError(f"{name}: log is true or false, and true needs from above 0; got {dict(value)}.")
    if step is None and name in LIST_OPTIONS:
        raise OptionError(f"{name} has no values between two others: give a list of choices; got {dict(value)}.")
    if step is None:
        return Interval(low, high, log)
    if log and (step != 1 or not Range(low, high, step).whole):
        raise OptionError(f"{name}: log goes with step 1 and whole numbers, or without step; got {dict(value)}.")
    if (high - low) / step >= MAX_VALUES:
        raise OptionError(f"{name}: a range has at most {MAX_VALUES} values: make step larger; got {dict(value)}.")
    return Range(low, high, step, log)


def _number(name: str, value: Mapping[str, Any], key: str) -> float:
    number = value.get(key)
    if not isinstance(number, int | float) or isinstance(number, bool) or number in (math.inf, -math.inf):
        raise OptionError(f"{name}: a range is finite numbers `from`, `to` and `step`; got {dict(value)}.")
    return number


def subspace_names(space: Space) -> list[str]:
    """Return a name for each subspace: that of its models, numbered if several subspaces have the same.

    >>> subspace_names([{"model.name": Choices(("padim",))}, {}, {"model.name": Choices(("padim",))}])
    ['padim', 'part', 'padim 2']
    """
    names: list[str] = []
    for subspace in space:
        models = subspace.get("model.name", Choices(("part",))).values
        name = " or ".join(map(str, models))
        count = sum(other == name or other.rpartition(" ")[0] == name for other in names)
        names.append(f"{name} {count + 1}" if count else name)
    return names


def space_size(space: Space) -> int | None:
    """Return the number of combinations of a space; None if some option has infinitely many values."""
    if any(isinstance(options, Interval) for subspace in space for options in subspace.values()):
        return None
    return sum(math.prod(options.count for options in subspace.values()) for subspace in space)


def expand(branch: Mapping[str, Options]) -> Iterator[dict[str, Any]]:
    """Yield every combination of a grid's options, the last option varying fastest."""
    for values in itertools.product(*(options.values for options in branch.values())):
        yield dict(zip(branch, values, strict=True))
