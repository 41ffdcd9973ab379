"""One configuration drawn from a space: a part of it first, then the options of that part. No torch here."""

import math
from typing import Any, Protocol

import numpy as np

from defectlab.sweeps.search_space import Choices, Interval, Options, Range, Space

DIGITS = 4  # of numbers drawn from an interval: they stand in names of runs


class Source(Protocol):
    """Whatever decides values: chance, or a sampler that has seen what earlier ones gave."""

    def draw(self, name: str, options: Options) -> Any:
        """Return one of the options; equal names mean the same question."""
        ...


class Chance:
    """Draws by chance alone: the same trial of the same seed draws the same values, whatever was drawn before."""

    def __init__(self, seed: int, trial: int) -> None:
        self._random = np.random.default_rng([seed, trial])

    def draw(self, name: str, options: Options) -> Any:
        """Return one of the options."""
        if isinstance(options, Choices):
            return options.values[int(self._random.integers(len(options.values)))]
        if isinstance(options, Range) and not options.log:
            return options.values[int(self._random.integers(len(options.values)))]
        low, high = options.low, options.high
        if options.log:
            return rounded(math.exp(self._random.uniform(math.log(low), math.log(high))), options)
        return rounded(self._random.uniform(low, high), options)


def rounded(value: float, options: Range | Interval) -> float:
    """Return a number that was drawn as it is used: whole where the options are, else of a few digits, and inside.

    >>> rounded(0.0123456, Interval(0.001, 0.1)), rounded(7.6, Range(1, 9, 1, log=True))
    (0.01235, 8)
    """
    if isinstance(options, Range) and options.whole:
        return min(max(round(value), round(options.low)), round(options.high))
    return min(max(float(f"{value:.{DIGITS}g}"), options.low), options.high)


def subspace_names(space: Space) -> list[str]:
    """Return a name for each part of a space: its model's, numbered where several have the same.

    >>> subspace_names([{"model.name": Choices(("padim",))}, {}, {"model.name": Choices(("padim",))}])
    ['padim', 'part', 'padim 2']
    """
    names: list[str] = []
    for part in space:
        models = part.get("model.name", Choices(("part",))).values
        name = " or ".join(map(str, models))
        count = sum(other == name or other.rpartition(" ")[0] == name for other in names)
        names.append(f"{name} {count + 1}" if count else name)
    return names


def sample(space: Space, source: Source) -> dict[str, Any]:
    """Return one combination of options from one part of a space."""
    names = subspace_names(space)
    name = source.draw("part", Choices(tuple(names))) if len(names) > 1 else names[0]
    part = space[names.index(name)]
    return {option: source.draw(f"{name}: {option}", options) for option, options in part.items()}


def space_size(space: Space) -> int | None:
    """Return how many combinations a space has; None where some option has endlessly many values."""
    options = [options for part in space for options in part.values()]
    if any(isinstance(one, Interval) for one in options):
        return None
    return sum(math.prod(len(one.values) for one in part.values()) for part in space)
