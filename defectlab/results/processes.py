"""Whether a process that is on record still lives: its number may be another's by now, after a restart above all."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROC = Path("/proc")


def this_process() -> dict[str, Any]:
    """Return what a record says of this process; `born` is None where the system does not tell."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "born": _born(os.getpid())}


def may_live(process: Mapping[str, Any]) -> bool:
    """Whether the process on record may live: of other machines nothing is known."""
    if process["host"] != socket.gethostname():
        return True
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    born = process.get("born")
    return born is None or _born(process["pid"]) in (None, born)


def _born(pid: int) -> str | None:
    """Return when a process began, in ticks since this start of the machine, whose id is put before it."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return f"{boot} {fields[19]}"  # field 22 of proc(5): the name, which may hold blanks, is the second
