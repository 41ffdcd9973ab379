"""Processes that die: at the N-th change of a file, which covers each of them, or at a moment of the clock."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from defectlab.results.run.record import FILE
from defectlab.results.run.run import Run
from defectlab.results.workbook import read_workbook

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR
KILLED = 77


def fork(function: Callable[[], Any]) -> int:
    """Run `function` in a copy of this process without output; return its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        function()
        code = 0
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a process and return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_after(function: Callable[[], Any], seconds: float) -> int:
    """Run `function` in a process that is killed after so many seconds; return its exit code."""
    pid = fork(function)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            return 0  # it was faster
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return ended(pid)


def dies_at(change: int, folder: Path) -> Callable[[], int]:
    """Let this process end, as if killed, before its N-th change of a file below `folder`; return their counter.

    What was written into a file but not flushed is lost: the file is found empty or cut.
    """
    return before_each_change(folder, lambda count: os._exit(KILLED) if count == change else None)


def count_changes(function: Callable[[], Any], home: Path) -> int:
    """Return how many changes of files below `home` a function makes."""
    read, write = os.pipe()

    def counted() -> None:
        count = dies_at(-1, home)
        function()
        os.write(write, str(count()).encode())

    assert ended(fork(counted)) == 0
    changes = int(os.read(read, 32))
    os.close(read)
    os.close(write)
    return changes


def before_each_change(folder: Path, call: Callable[[int], None]) -> Callable[[], int]:
    """Let this process call `call(N)` before its N-th change of a file below `folder`, from 0; return their counter.

    Changes are openings for writing, renames, removals and new folders.
    """
    count, root = 0, str(folder)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, mode, flags = arguments
            if not (any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & _WRITING):
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, str | Path) and str(path).startswith(root):
            count += 1
            call(count - 1)

    sys.addaudithook(watch)
    return lambda: count


def check_files(home: Path) -> set[str]:
    """Check that every file that readers look at is whole; return the run ids of the finished runs."""
    done = set()
    for file in home.rglob(FILE):
        json.loads(file.read_text(encoding="utf-8"))
    for file in home.rglob("*.json"):
        json.loads(file.read_text(encoding="utf-8"))
    for file in home.glob("results/*/*/[!.]*/run.json"):
        run = Run.open(file.parent)
        run.scores()
        for split in ("validation", "test"):
            run.maps(split)
        if run.record.status == "finished":
            done.add(run.record.run_id)
            assert run.record.metrics, file
    for file in home.rglob("*.npy"):
        if not file.name.startswith("."):
            np.load(file, mmap_mode="r")
    workbook = home / "models_comparing.xlsx"
    if workbook.is_file():
        read_workbook(workbook)
    return done


def hidden_folders(home: Path) -> list[str]:
    """Names of the folders that reruns use beside their places."""
    return sorted(path.name for path in home.glob("results/*/*/.*") if path.is_dir())
