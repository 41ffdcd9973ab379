"""What a sweep varies: lists and ranges of options, expanded into single settings. No torch here."""

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from defectlab.errors import OptionError
from defectlab.options import check_option_names

# A list of plain values is one value of these; their choices are lists of lists.
LISTS = {
    *("model.layers", "model.image_size", "model.center_crop", "evaluation.pixel_size", "data.extensions"),
    *("data.abnormal_dir", "data.mask_dir", "data.normal_dir", "data.normal_test_dir"),
}


@dataclass(frozen=True)
class Choices:
    """One of several values."""

    values: tuple[Any, ...]

    def draw(self, source: random.Random) -> Any:
        """Return one at random."""
        return source.choice(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where all three are whole. `step` None is continuous."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    @property
    def values(self) -> tuple[float, ...]:
        """All values of a range with a step.

        Raises:
            OptionError: There is no step.
        """
        if self.step is None:
            raise OptionError(
                f"The range {self.low} to {self.high} has no step, so a grid cannot list its values: add `step: ...`, "
                "or search it (section `search`)."
            )
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(self._rounded(self.low + index * self.step) for index in range(count))

    def draw(self, source: random.Random) -> float:
        """Return one at random, uniformly, or with `log` in its logarithm."""
        if self.step is not None and not self.log:
            return source.choice(self.values)
        if self.log:
            value = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = source.uniform(self.low, self.high)
        return self._rounded(min(max(value, self.low), self.high))

    def _rounded(self, value: float) -> float:
        return round(value) if self.whole and (self.step or self.log) else float(f"{value:.12g}")


Options = Choices | Range


def options_of(name: str, value: Any) -> Options:
    """Return what a value in a sweep's file means for the option `name`.

    A list is choices; of an option that is a list itself (`model.layers`), a list of lists is. `{from: 10, to: 500,
    step: 10}` is a range, `{choices: [...]}` says choices of anything; every other value is the only choice.

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
    if name in LISTS:
        plain = not isinstance(value, list) or any(not isinstance(item, list | None) for item in value)
        return Choices((value,)) if plain else _choices(name, value)
    return _choices(name, value) if isinstance(value, list) else Choices((value,))


def _choices(name: str, values: Any) -> Choices:
    if not isinstance(values, list) or not values:
        raise OptionError(f"{name}: the choices must be a list of at least one value, got {values!r}.")
    return Choices(tuple(values))


def _range(name: str, value: Mapping[str, Any]) -> Range:
    check_option_names(value, ["from", "to", "step", "log"], f"The range of {name}")
    low, high, step = _number(name, value, "from"), _number(name, value, "to"), None
    if value.get("step") is not None:
        step = _number(name, value, "step")
    log = value.get("log", False)
    if low > high or (step is not None and step <= 0) or (log and low <= 0):
        raise OptionError(f"{name}: from must be at most to, step above 0, with log from above 0; got {dict(value)}.")
    if log and step is not None:
        raise OptionError(f"{name}: a range has a step or is logarithmic, not both.")
    return Range(low, high, step, bool(log))


def _number(name: str, value: Mapping[str, Any], key: str) -> float:
    number = value.get(key)
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise OptionError(f"{name}: a range needs numbers `from` and `to`, and `step` for a grid; got {dict(value)}.")
    return number


def expand(branch: Mapping[str, Options]) -> Iterator[dict[str, Any]]:
    """Yield every combination of a grid's options, the last option varying fastest."""
    for values in itertools.product(*(options.values for options in branch.values())):
        yield dict(zip(branch, values, strict=True))
