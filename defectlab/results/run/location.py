"""Location of run folders, detection of live processes that use them, and cleanup after killed runs."""

import difflib
import glob
import os
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from defectlab.results.run.identity import differing_suffix, safe_name
from defectlab.results.run.record import FILE, NewerRecordError, ProcessRecord, RunRecord, find_record
from defectlab.utils import paths

CHECKPOINT = "weights/lightning/model.ckpt"


def parent_of(results: Path, record: RunRecord) -> Path:
    """Return the parent of a run's folder, named by model and dataset."""
    return results / safe_name(record.model) / safe_name(record.dataset.name)


def place_of(parent: Path, name: str, facts: Mapping[str, Any], identity: str) -> Path:
    """Return the folder for this experiment: that of its earlier run of this name, or a free one."""
    for file in sorted(parent.glob(f"{glob.escape(name)}*/{FILE}")):
        earlier = _known_record(file.parent)
        if earlier is not None and earlier.run_id == identity:
            return file.parent
    if not (parent / name).exists():
        return parent / name
    taken = _known_record(parent / name)
    suffix = differing_suffix(facts, taken.facts) if taken else ""
    return next(
        folder
        for folder in (parent / f"{name}{suffix}", parent / f"{name}{suffix}_{identity[:6]}")
        if not folder.exists() or folder.name.endswith(identity[:6])
    )


def _known_record(folder: Path) -> RunRecord | None:
    with suppress(NewerRecordError):
        return find_record(folder)
    return None


def locked(parent: Path) -> FileLock:
    """Return a lock that prevents two processes from using the same run folder name in `parent` at once."""
    return FileLock(parent / ".lock")


def replace_run(final: Path, folder: Path) -> None:
    """Move a run's folder to its final place beside it; a run that is there is removed after the move."""
    old = final.with_name(f".{final.name}.old-{os.getpid()}")
    if final.exists():
        final.rename(old)
    folder.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def clear_leftovers(parent: Path, name: str) -> None:
    """Remove folders left by killed reruns, unless they hold a checkpoint from which training could continue.

    If a rerun was killed while it replaced its earlier run and left no folder there, the earlier run is restored.
    """
    for old in parent.glob(f".{glob.escape(name)}.old-*"):
        if (parent / name).exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(parent / name)
    for folder in parent.glob(f".{glob.escape(name)}.rerun-*"):
        try:
            record = find_record(folder)
        except NewerRecordError:
            continue
        if (record is None or not runs_elsewhere(record)) and not (folder / CHECKPOINT).exists():
            shutil.rmtree(folder, ignore_errors=True)


def runs_elsewhere(record: RunRecord) -> bool:
    """Return whether another live process on this machine is running the recorded run."""
    process = record.process
    return process.host == socket.gethostname() and process.pid != os.getpid() and is_alive(record)


def is_alive(record: RunRecord) -> bool:
    """Return whether the recorded run may still be running."""
    return record.status == "running" and may_live(record.process)


def suggest_runs(wanted: Path) -> str:
    """Return a message that lists existing runs in place of a missing one, with the closest names first."""
    there = [paths.relative(file.parent) for file in sorted(paths.results_dir().glob(f"*/*/[!.]*/{FILE}"))]
    if not there:
        return (
            f"There are no runs under {paths.results_dir()} yet: run the first training cell of "
            "training_code/patchcore.ipynb, or `make demo`."
        )
    close = difflib.get_close_matches(paths.relative(wanted), there, n=3, cutoff=0)
    more = f" and {len(there) - len(close)} more under {paths.results_dir()}" if len(there) > len(close) else ""
    return f"There are {', '.join(close)}{more}; a training cell or `make demo` makes others."


PROC = Path("/proc")


def this_process() -> dict[str, Any]:
    """Return the record of this process; `born` is None if the system does not report a start time."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "born": _born(os.getpid())}


def may_live(process: ProcessRecord) -> bool:
    """Return whether the recorded process may be alive; True for a process on another machine."""
    if process.host != socket.gethostname():
        return True
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # the process belongs to another user
    return process.born is None or _born(process.pid) in (None, process.born)


def _born(pid: int) -> str | None:
    """Return the boot id and a process's start time in clock ticks since boot; None if they are unavailable."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return f"{boot} {fields[19]}"  # field 22 of proc(5); the name, which may contain blanks, is field 2
