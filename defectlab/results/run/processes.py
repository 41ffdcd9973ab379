"""Processes by their record: of this machine, by number and start time; of others nothing is known."""

import os
import socket
from pathlib import Path
from typing import Any

from defectlab.results.run.record import ProcessRecord

PROC = Path("/proc")


def this_process() -> dict[str, Any]:
    """Return the record of this process; `born` and `namespace` are None if the system does not report them."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "born": _start_time(os.getpid()),
        "namespace": _namespace(),
    }


def is_local(process: ProcessRecord) -> bool:
    """Return whether the process is of this machine since its last start, so that its number can be looked up."""
    if not _is_numbered_here(process):
        return False
    own = _start_time(os.getpid())
    return process.born is None or own is None or process.born.split()[0] == own.split()[0]


def may_live(process: ProcessRecord) -> bool:
    """Return whether the recorded process may be alive, by its number alone; True for one of another machine."""
    if not _is_numbered_here(process):
        return True
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # the process belongs to another user
    return process.born is None or _start_time(process.pid) in (None, process.born)


def has_ended(process: ProcessRecord) -> bool:
    """Return whether the process is one of this machine that has ended; nothing is known of other machines' here."""
    return is_local(process) and not may_live(process)


def _is_numbered_here(process: ProcessRecord) -> bool:
    """Return whether the process has the host name and the namespace of process numbers of this one."""
    return process.host == socket.gethostname() and process.namespace in (None, _namespace())


def _namespace() -> str | None:
    """Return the namespace of process numbers: containers of one machine count apart."""
    try:
        return str((PROC / "self/ns/pid").readlink())
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """Return the boot id and a process's start time in clock ticks since boot; None if they are unavailable."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return f"{boot} {fields[19]}"  # field 22 of proc(5); the name, which may contain blanks, is field 2
