"""Ownership of run folders: which living process, of this machine or of another that shares the disk, uses one.

A process of this machine is looked up (`processes`). One of another machine is known by its heartbeat: it rewrites the
owner file in its run folder every few seconds, and the file system dates it. The age of a heartbeat is the difference
to a file written now on the same file system, so that the clocks of the machines are never compared.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from defectlab.results.run.processes import is_local, may_live, this_process
from defectlab.results.run.record import ProcessRecord, RunRecord
from defectlab.results.run.record_checks import check_process
from defectlab.utils.file_age import file_system_time
from defectlab.utils.folders import guard_folders
from defectlab.utils.json_files import read_json
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

OWNER = ".owner"  # file in the folder of a run that a process is using; its date is the heartbeat
BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 900.0  # a drive may hang, a laptop may sleep for some minutes: only then is a silent run abandoned
WATCH_SECONDS = 3 * BEAT_SECONDS  # how long a heartbeat of an odd date is watched before it is called silent
UNMARKED_SECONDS = 24 * 3600.0  # the same for a folder without owner file, by its newest file


def is_alive(folder: Path, record: RunRecord) -> bool:
    """Return whether the run recorded in `folder` may still be running; nothing is written and nothing waited for."""
    return record.status == "running" and _uses(folder, record.process, watch=False)


def is_owned(folder: Path, record: RunRecord | None) -> bool:
    """Return whether a living process may be using `folder`, whatever the run's status; this process counts.

    Takes up to `WATCH_SECONDS` where a heartbeat of another machine has an odd date.
    """
    process = owner_of(folder, record)
    if process is None:
        return is_recent(folder, EXPIRY_SECONDS)  # a folder that is just being made
    return _uses(folder, process, watch=True)


def runs_elsewhere(folder: Path, record: RunRecord) -> bool:
    """Return whether another living process is training or testing the recorded run, or is about to test it."""
    if is_own(folder, record):
        return False
    begun_here = record.status == "running" and is_local(record.process)
    return ((folder / OWNER).is_file() or begun_here) and is_owned(folder, record)


def owner_of(folder: Path, record: RunRecord | None) -> ProcessRecord | None:
    """Return the process that uses a run's folder, or used it last: not always the one that began the run."""
    try:
        process = ProcessRecord.from_dict(read_json(folder / OWNER))
        check_process(process)
        return process
    except (OSError, ValueError):
        return None if record is None else record.process


def is_recent(folder: Path, seconds: float) -> bool:
    """Return whether the heartbeat of a folder, or its newest file, is at most so old by the file system's clock."""
    date = _date(folder)
    return date is not None and 0 <= file_system_time(folder.parent) - date <= seconds


def is_own(folder: Path, record: RunRecord | None) -> bool:
    """Return whether this process is the owner of a run on record."""
    process = None if record is None else owner_of(folder, record)
    return process is not None and is_local(process) and process.pid == os.getpid()


def claim(folder: Path) -> str:
    """Make this process the owner of a folder, with a heartbeat until `release` or the end of the process.

    Returns:
        What the owner file holds, by which `release` knows this claim from a later one.
    """
    text = json.dumps({**this_process(), "started": f"{time.time():.6f}"})
    (folder / OWNER).write_text(text, encoding="utf-8")
    _HEART.claims[folder.absolute()] = text
    _HEART.start()
    return text


def claim_of(folder: Path) -> str | None:
    """Return what this process wrote into the owner file of a folder; None if it has not claimed it."""
    return _HEART.claims.get(folder.absolute())


def check_claim(folder: Path) -> None:
    """Check that a folder claimed by this process is still its own; a folder that it never claimed passes.

    Raises:
        InputError: Another process has taken or removed the folder meanwhile.
    """
    if is_lost(folder):
        raise InputError(
            f"{folder} was removed or taken by another process: this one had given no sign of life for more than "
            f"{EXPIRY_SECONDS / 60:.0f} minutes, another finished the same experiment meanwhile, or the folder was "
            "deleted by hand. Nothing was written into it since. Start the run again."
        )


def is_lost(folder: Path) -> bool:
    """Return whether a folder that this process has claimed is gone or another's."""
    text = claim_of(folder)
    return text is not None and _is_lost(folder / OWNER, text)


def _claimed_folder(path: Path) -> Path | None:
    """Return the claimed folder in which `path` lies; None if there is none.

    Raises:
        InputError: It is no longer this process's.
    """
    folder = next((folder for folder in path.absolute().parents if folder in _HEART.claims), None)
    if folder is not None:
        check_claim(folder)
    return folder


guard_folders(_claimed_folder)


def _is_lost(file: Path, text: str) -> bool:
    """Return whether an owner file is gone or another's; one that a drive fails to read now may be neither."""
    try:
        return file.read_text(encoding="utf-8") != text
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError as error:
        logger.warning("%s cannot be read now (%s): the run goes on", file, error.strerror)
        return False


def moved(folder: Path, final: Path) -> None:
    """Let this process's ownership follow a folder that was renamed."""
    if (text := _HEART.claims.pop(folder.absolute(), None)) is not None:
        _HEART.claims[final.absolute()] = text


def release(folder: Path, text: str | None = None) -> None:
    """End this process's ownership of a folder, if it has it; with `text` only the claim that returned it."""
    held = claim_of(folder)
    if held is None or text not in (None, held):
        return
    _HEART.claims.pop(folder.absolute(), None)
    if _read(folder / OWNER) == held:
        (folder / OWNER).unlink(missing_ok=True)


class _Heart:
    """The heartbeat of this process: one thread for all folders that it owns."""

    def __init__(self) -> None:
        self.claims: dict[Path, str] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs; a forked child has none."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._beat, name="defectlab-heartbeat", daemon=True)
            self._thread.start()

    def forget(self) -> None:
        """Own nothing: called in a forked child, whose parent still owns the folders."""
        self.claims, self._thread = {}, None

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            for folder, text in list(self.claims.items()):
                with contextlib.suppress(OSError):
                    beat(folder / OWNER, text)


def beat(file: Path, text: str) -> None:
    """Let the file system date an owner file anew, by writing the same text; another owner's file stays as it is."""
    with file.open("r+", encoding="utf-8") as owner:
        if owner.read() == text:
            owner.seek(0)
            owner.write(text)
            owner.flush()
            os.fsync(owner.fileno())


_HEART = _Heart()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HEART.forget)


def _uses(folder: Path, process: ProcessRecord, *, watch: bool) -> bool:
    """Return whether the process, of this machine or another, lives."""
    marked = (folder / OWNER).is_file()
    if is_local(process) or (not marked and process.host == socket.gethostname()):
        return may_live(process)
    if not marked:
        return is_recent(folder, UNMARKED_SECONDS)
    # A machine of our own name that was started at another time is most likely this one, before it was restarted.
    limit = 0.0 if process.host == socket.gethostname() else EXPIRY_SECONDS
    if is_recent(folder, limit):
        return True
    if not watch:
        return False
    # Too old, or of a time to come: a clock was set. A living owner writes again meanwhile.
    logger.info("Waiting %.0f s for a sign of life from process %d of %s", WATCH_SECONDS, process.pid, process.host)
    before = _date(folder)
    time.sleep(WATCH_SECONDS)
    return _date(folder) != before


def _date(folder: Path) -> float | None:
    """Return when the owner file was written, else the newest file of the folder; None if there is no folder."""
    try:
        with (folder / OWNER).open("rb") as file:  # opened: only then does a network drive ask for the date anew
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return max(_dates(folder), default=None)


def _dates(folder: Path) -> Iterator[float]:
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(OSError):
            yield path.stat().st_mtime


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
