"""Checks of what a record's types leave open: sizes, dates, the process, names that become paths. Loads no numpy."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from defectlab.utils.json_object import JsonTypeError, short_repr

MAX_PID = 2**31 - 1  # beyond it the system's calls fail

_OneCheck = tuple[str, Any, Callable[[Any], bool], str]  # key, value, whether it can be, and what it should be


def check_record(record: Any) -> None:
    """Check the values of a `RunRecord` that readers of records build on.

    Raises:
        JsonTypeError: The first that cannot be; it names the key.
    """
    _check(_of_record(record))
    try:
        check_process(record.process)
    except JsonTypeError as error:
        raise error.below("process") from None
    _check([("process.started", record.process.started, _is_date, "a date")])


def check_process(process: Any) -> None:
    """Check the number and the time of birth of a `ProcessRecord`, by which a process is looked up.

    Raises:
        JsonTypeError: The first that cannot be; it names the key.
    """
    _check([
        ("pid", process.pid, lambda pid: 0 < pid <= MAX_PID, "the number of a process"),
        ("born", process.born, lambda text: bool(text.strip()), "the boot of a machine and a time"),
    ])  # fmt: skip


def _check(checks: Iterable[_OneCheck]) -> None:
    for key, value, is_valid, wanted in checks:
        if value is not None and not is_valid(value):
            raise JsonTypeError(f"is {short_repr(value)}, not {wanted}", key)


def _of_record(record: Any) -> Iterator[_OneCheck]:
    preprocessing, evaluation, protocol = record.preprocessing, record.evaluation, record.dataset.protocol
    size = "height and width in pixels"
    yield "name", record.name, _is_folder_name, "the name of a folder"
    for key in ("fitted", "finished", "failed"):
        yield key, getattr(record, key), _is_date, "a date"
    yield "facts.seed", record.facts.get("seed"), _is_whole, "a whole number"
    yield "facts.model.seed", record.facts.get("model.seed"), _is_whole, "a whole number"
    yield "experiment.data.passes", record.experiment.data.get("passes"), _is_count, "a whole number from 1"
    batch = record.experiment.data.get("eval_batch_size")
    yield "experiment.data.eval_batch_size", batch, _is_count, "a whole number from 1"
    yield "experiment.trainer.max_epochs", record.experiment.trainer.get("max_epochs"), _is_whole, "a whole number"
    yield "experiment.model.name", record.experiment.model.get("name"), lambda name: isinstance(name, str), "text"
    yield "preprocessing.size", preprocessing.size, _is_size, size
    yield "preprocessing.crop", preprocessing.crop, _is_size, size
    if preprocessing.tiling is not None:
        yield "preprocessing.tiling.image_size", preprocessing.tiling.image_size, _is_size, size
    if preprocessing.region is not None:
        yield "preprocessing.area.box", preprocessing.region.box, _is_box, "left, top, right and bottom in pixels"
        yield "preprocessing.area.size", preprocessing.region.size, _is_size, size
    yield "evaluation.grid", evaluation.grid, _is_size, size
    yield "evaluation.pixel_size", evaluation.pixel_size, _is_pixel_size, f"input, original or {size}"
    if record.maps is not None:
        yield "maps.rows", record.maps.rows, lambda rows: all(row >= 0 for row in rows), "the numbers of rows"
    if record.k_shots is not None:
        numbers = [fit.k for fit in record.k_shots.fits]
        yield "k_shots.fits", numbers, lambda ks: all(map(_is_count, ks)), "fits with a number of images from 1"
    yield "dataset.protocol.group", protocol.group, _is_pattern, "a regular expression"
    yield "dataset.protocol.mask_reading", protocol.mask_reading, _is_reading, "how masks are read"


def _is_folder_name(name: str) -> bool:
    return name not in ("", ".", "..") and not any(character in name for character in "/\\")


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        return False
    return True


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value > 0


def _is_size(value: Sequence[int]) -> bool:
    return len(value) == 2 and min(value) > 0


def _is_box(value: Sequence[int]) -> bool:
    return len(value) == 4 and 0 <= value[0] < value[2] and 0 <= value[1] < value[3]


def _is_pixel_size(value: str | Sequence[int]) -> bool:
    return value in ("input", "original") if isinstance(value, str) else _is_size(value)


def _is_pattern(value: str) -> bool:
    try:
        re.compile(value)
    except re.error:
        return False
    return True


def _is_reading(value: Mapping[str, Any]) -> bool:
    threshold, flags = value.get("threshold"), (value.get("inverted"), value.get("not_zero"))
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    return is_number and all(isinstance(flag, bool) for flag in flags)
