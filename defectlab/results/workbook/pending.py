"""Who renders the workbook, and for whom: one process at a time, for all that have left a mark.

A process leaves a mark beside the workbook, a small file with the folder of its run, and renders the workbook if no
other process does. Otherwise it waits until its mark is gone: whoever renders takes in all marks that it finds, and
removes them once the file is written. A killed renderer leaves the marks and lets go of the lock, so that one of those
that wait takes over.
"""

import contextlib
import glob
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from defectlab.utils.file_age import age_of
from defectlab.utils.files import write_json
from defectlab.utils.json_files import parse_json
from defectlab.utils.json_object import JsonTypeError

WAIT_SECONDS = 30.0  # then a process goes on: the one that renders takes its mark in before it ends
POLL_SECONDS = 0.05
OLD_SECONDS = 3600.0  # age of a mark's unfinished file that only a killed process leaves

Outcome = TypeVar("Outcome")


def lock_of(path: Path) -> FileLock:
    """Return the lock that the process which renders the workbook `path` holds."""
    return FileLock(path.with_name(f".{path.name}.lock"))


def leave_mark(path: Path, folder: Path | None) -> Path:
    """Ask for the workbook to be rendered, with the run in `folder`, which may lie outside results/.

    Raises:
        DiskError: The mark cannot be written.
    """
    mark = path.with_name(f".{path.name}.pending.{os.getpid()}-{time.time_ns()}")
    write_json(mark, {"folder": None if folder is None else str(folder)})
    return mark


def marks_of(path: Path) -> list[Path]:
    """Return the marks that wait to be taken in, in the order of their names."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.pending*"))


def folders_of(marks: Iterable[Path]) -> list[str]:
    """Return the run folders that the marks name; those of earlier versions are text with a folder a line."""
    return [folder for mark in marks for folder in _folders_in(mark.read_bytes())]


def _folders_in(mark: bytes) -> list[str]:
    try:
        folder = parse_json(mark)["folder"]
    except (JsonTypeError, TypeError, KeyError):
        return [line for line in mark.decode(errors="surrogateescape").split("\n") if line]
    return [str(folder)] if folder else []


def clear_leftovers(path: Path) -> None:
    """Remove what killed processes left of files that they were writing; only for the process that renders."""
    name = glob.escape(path.name)
    for partial in path.parent.glob(f".{name}.*.part"):
        partial.unlink(missing_ok=True)
    for unfinished in path.parent.glob(f"..{name}.pending.*.part"):
        with contextlib.suppress(FileNotFoundError):  # it has become a mark
            if age_of(unfinished) > OLD_SECONDS:
                unfinished.unlink()


def render_or_wait(path: Path, mark: Path, render: Callable[[], Outcome]) -> Outcome | None:
    """Render the workbook, or wait until another process has taken in `mark`.

    `render` takes in and removes all marks that it finds.

    Returns:
        What `render` returned, or None if another process has rendered the workbook with this mark.

    Raises:
        Timeout: Another process has been rendering for `WAIT_SECONDS`; the mark stays, and it takes it in.
    """
    lock, end = lock_of(path), time.monotonic() + WAIT_SECONDS
    outcome: Outcome | None = None
    while mark.exists() if outcome is None else marks_of(path) and time.monotonic() < end:
        try:
            with lock.acquire(timeout=0):
                outcome = render()
        except Timeout:
            if outcome is not None:
                break  # the next one renders already, for all marks that came in meanwhile
            if time.monotonic() > end:
                raise
            pause()
    return outcome


def pause() -> None:
    """Wait a moment for the process that renders."""
    time.sleep(POLL_SECONDS)
