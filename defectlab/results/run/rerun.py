"""Reruns of an experiment: hidden folders beside the earlier run, taking its place, and what killed ones left.

The callers hold the lock of the parent folder (`folder_lock.locked`), which a machine that was silent for too long
loses. So every step that another could then do at the same time is one `mkdir` or one rename of a folder, which only
one of them wins. Hidden folders are named `.<run name>.<kind>-<random>`; the kinds are `rerun` (a run that is not in
its place yet), `old` (an earlier run while it is replaced) and `gone` (being deleted). Where a name that an earlier
version gave leaves no room for more, its end is left out.
"""

import glob
import logging
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from defectlab.results.run.folder_lock import locked
from defectlab.results.run.location import CHECKPOINT
from defectlab.results.run.ownership import UNMARKED_SECONDS, claim, is_own, is_owned, is_recent, moved, release
from defectlab.results.run.record import STATUSES, NewerRecordError, RunRecord, find_record
from defectlab.utils import paths
from defectlab_runtime import names
from defectlab_runtime.errors import BusyError

logger = logging.getLogger(__name__)

TRAINED = STATUSES.index("fitted")
NEWER = len(STATUSES)
MAX_NAME = 255 - len("..rerun-12345678")  # bytes of a run's name that leave room for the rest of a hidden one
ATTEMPTS = 20  # renames lost to other processes before one gives up


def make_rerun_folder(parent: Path, name: str) -> Path:
    """Make a hidden folder for a run of this name, owned by this process."""
    folder = _hidden(parent, name, "rerun")
    folder.mkdir()
    claim(folder)
    return folder


def take_place(folder: Path, final: Path, earlier: RunRecord | None) -> bool:
    """Move a new run to its place; the unfinished run there, whose record is `earlier`, is removed.

    Returns:
        False if another process was faster: nothing has changed then.
    """
    if final.exists():
        if find_record(final) != earlier:  # no longer the run that was looked at: it is not even moved
            return False
        old = _hidden(final.parent, final.name, "old")  # restored, should this process be killed before it looks
        try:
            final.rename(old)
        except OSError:
            return False
        if find_record(old) != earlier:
            with suppress(OSError):
                old.rename(final)
            return False
        discard(old)
    return _moved(folder, final)


def replace_run(final: Path, folder: Path) -> None:
    """Move a run's folder to its final place beside it; a run that is there is removed after the move.

    Raises:
        BusyError: Other processes took the place again and again.
    """
    for _ in range(ATTEMPTS):
        old = _hidden(final.parent, final.name, "old")
        with suppress(FileNotFoundError):
            final.rename(old)
        if _moved(folder, final):
            discard(old)
            return
    raise BusyError(f"Other processes are writing {final} again and again. The run stays in {folder}: move it there.")


def _moved(folder: Path, final: Path) -> bool:
    try:
        folder.rename(final)  # fails where a folder with content is
    except OSError:
        if not final.exists():
            raise
        return False
    moved(folder, final)
    return True


def clear_leftovers(parent: Path, name: str, status: str, keep: Path | None = None) -> None:
    """Remove what ended reruns of an experiment left, once a run of it by this process has come to `status`.

    A rerun goes if no other living process owns it and it had come no further. One with a checkpoint, from which
    training could continue, stays while `status` is `running`. `keep` is a folder to leave alone.
    """
    _tidy(parent, name)
    for folder in _found(parent, name, "rerun"):
        if folder == keep or (status == "running" and (folder / CHECKPOINT).exists()):
            continue
        record, progress = _read(folder)
        if progress <= STATUSES.index(status) and (is_own(folder, record) or not is_owned(folder, record)):
            _clear(folder)


def clear_all_leftovers(results: Path) -> None:
    """Remove what ended reruns under a results folder left, if no living process owns it.

    Two kinds stay: one with a checkpoint whose earlier run is not trained, and, for a day, one whose training is
    complete, since its checkpoint can be tested.
    """
    places = {(path.parent, path.name[1:].rpartition(".")[0]) for path in results.glob("*/*/.*.*-*") if path.is_dir()}
    for parent, hidden in sorted(places):
        try:
            name = next((run.name for run in parent.iterdir() if _short(run.name) == hidden), hidden)
            with locked(parent):
                _tidy(parent, name)
                for folder in _found(parent, name, "rerun"):
                    if _is_useless(folder, parent / name):
                        _clear(folder)
        except OSError as error:  # a folder that is only read
            logger.info("Leftovers in %s stay: %s", paths.relative(parent), error)


def _is_useless(folder: Path, final: Path) -> bool:
    record, progress = _read(folder)
    if progress == NEWER or (_read(final)[1] < TRAINED and (folder / CHECKPOINT).exists()):
        return False
    if progress >= TRAINED and is_recent(folder, UNMARKED_SECONDS):
        return False
    return not is_owned(folder, record)


def _tidy(parent: Path, name: str) -> None:
    """Finish what was interrupted: an earlier run that nothing replaced is restored, others are deleted."""
    final = parent / name
    for old in _found(parent, name, "old"):
        if not final.exists():
            with suppress(OSError):
                old.rename(final)
        elif _read(final)[1] >= _read(old)[1]:
            _clear(old)
    for gone in _found(parent, name, "gone"):
        shutil.rmtree(gone, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Delete what an ended rerun left, and say so."""
    if discard(folder):
        logger.info("Removed what an ended rerun left: %s", paths.relative(folder))


def discard(folder: Path) -> bool:
    """Delete a folder that no living process owns: first it disappears as a whole, then its files are deleted.

    Nothing is logged here, where a run that has just moved does not know yet that its log lies elsewhere.

    Returns:
        False if another process was faster.
    """
    name, _, kind = folder.name[1:].rpartition(".")
    gone = _hidden(folder.parent, name, "gone") if kind else folder
    try:
        folder.rename(gone)
    except OSError:  # another process was faster
        return False
    release(folder)
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _hidden(parent: Path, name: str, kind: str) -> Path:
    return parent / f".{_short(name)}.{kind}-{secrets.token_hex(4)}"


def _found(parent: Path, name: str, kind: str) -> list[Path]:
    return sorted(parent.glob(f".{glob.escape(_short(name))}.{kind}-*"))


def _short(name: str) -> str:
    """Return a run's name as hidden names have it, where a hash stands for what there is no room for."""
    if len(os.fsencode(name)) <= MAX_NAME:
        return name
    return f"{os.fsencode(name)[: MAX_NAME - 9].decode(errors='ignore')}-{names.short_hash(name)}"


def _read(folder: Path) -> tuple[RunRecord | None, int]:
    """Return the record of the run in a folder and how far it has come, as a place in `STATUSES`.

    It is -1 without a record, and `NEWER` for one of a newer version, which is not read and further than all.
    """
    try:
        record = find_record(folder)
    except NewerRecordError:
        return None, NEWER
    return record, -1 if record is None else STATUSES.index(record.status)
