"""Repeats of one experiment with several seeds, summarised as mean, standard deviation and interval."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from defectlab.evaluation.intervals import CONFIDENCE, mean_and_interval
from defectlab.results.run.run import Run
from defectlab.results.workbook_row import _seed, _settings, repeat_key
from defectlab_runtime.errors import InputError


@dataclass(frozen=True)
class Spread:
    """Statistics of a metric over `count` seeds; `deviation` (ddof 1), `low` and `high` are None for a single value."""

    count: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Repeats:
    """Runs of one experiment, in the order of their seeds; `metrics` holds each metric that any run has a value for."""

    runs: tuple[Run, ...]
    seeds: tuple[int, ...]
    metrics: dict[str, Spread]


def summarise(runs: Sequence[Run]) -> Repeats:
    """Summarise each metric over repeats of one experiment, without the seeds at which the metric has no value.

    Raises:
        InputError: No run, one run twice, or runs that differ in more than their seed.
    """
    if not runs:
        raise InputError("There are no runs to sum up.")
    others = [run for run in runs[1:] if repeat_key(run) != repeat_key(runs[0])]
    if others:
        raise InputError(
            f"{runs[0].folder.name} and {others[0].folder.name} differ in more than their seed "
            f"({', '.join(_differing(runs[0], others[0]))}): they are no repeats of each other."
        )
    if len({run.record.run_id for run in runs}) < len(runs):
        raise InputError("The same run is given twice: a repeat needs a seed of its own.")
    ordered = sorted(runs, key=_seed)
    names = dict.fromkeys(name for run in ordered for name in run.record.metrics)
    values = {name: [run.record.metrics.get(name) for run in ordered] for name in names}
    found = {name: [value for value in its if value is not None] for name, its in values.items()}
    spreads = {name: spread(its) for name, its in found.items() if its}
    return Repeats(tuple(ordered), tuple(_seed(run) for run in ordered), spreads)


def spread(values: Iterable[float], confidence: float = CONFIDENCE) -> Spread:
    """Return mean, standard deviation and Student's t interval of the values, clipped to [0, 1] if all lie in it.

    The interval is for the mean over seeds on the same test images; it does not apply to other images.

    Raises:
        InputError: No value.
    """
    numbers = [float(value) for value in values]
    if not numbers:
        raise InputError("There is no value to sum up.")
    mean, deviation, low, high = mean_and_interval(numbers, confidence)
    if low is not None and high is not None and all(0 <= value <= 1 for value in numbers):
        low, high = max(low, 0.0), min(high, 1.0)
    return Spread(len(numbers), mean, deviation, low, high)


def _differing(one: Run, other: Run) -> list[str]:
    first, second = _settings(one), _settings(other)
    keys = sorted({*first, *second})
    return [key for key in keys if first.get(key) != second.get(key)]
