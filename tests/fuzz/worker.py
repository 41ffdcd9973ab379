"""A process that attacks seed after seed, so that a hang or an exhausted memory ends it and not the run."""

import contextlib
import io
import logging
import multiprocessing
import os
import re
import resource
import shutil
import tempfile
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.target import load_target, run_attack

PATIENCE = 12  # times the seconds for computing that an answer may take by the clock
MEMORY_LIMIT = 12 << 30  # bytes of address space: ends a bomb before it ends the machine


class Worker:
    """A process for one target. `attack` gives its answer, or what ended the process."""

    def __init__(self, target: str, good: Path) -> None:
        self._start = (target, good)
        self._process: multiprocessing.process.BaseProcess | None = None

    def attack(self, seed: int, seconds: float) -> tuple[str, str]:
        """Return the outcome of one seed (`accepted`, `refused`, `fault`, `hang` or `died`) and its traceback.

        A hang is no answer after so many seconds of the process's own computing, or `PATIENCE` times as many by the
        clock: on a busy machine a process that waits for its turn does not hang.
        """
        if self._process is None:
            self._launch()
        assert self._process is not None
        self._pipe.send(seed)
        computed, end = self._computed_seconds(), time.monotonic() + PATIENCE * seconds
        while not self._pipe.poll(seconds / 10):
            if self._computed_seconds() - computed > seconds or time.monotonic() > end:
                self.close()
                return "hang", f"no answer after {seconds:g} s"
        try:
            outcome, text = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            self.close()
            return "died", f"the process ended with {code}"
        return outcome, text

    def peak_bytes(self) -> int:
        """Return the peak resident memory of the process so far, 0 before its start."""
        if self._process is None:
            return 0
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                return int(found[1]) * 1024
        return 0

    def _computed_seconds(self) -> float:
        """Return the processor time that the process has taken so far, 0 where the system does not say."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def close(self) -> None:
        """End the process, if one runs."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def _launch(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(*self._start, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # imports and the warm-up are done


def _serve(name: str, good: Path, pipe: Connection) -> None:
    target = load_target(name)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff writes a line there for each damaged part
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    with contextlib.redirect_stdout(io.StringIO()):
        target.warm_up()
    pipe.send("ready")
    work = Path(tempfile.mkdtemp(prefix="defectlab-fuzz-"))
    try:
        while True:
            seed = pipe.recv()
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    answer = (run_attack(target, seed, good, work), "")
            except BaseException:
                answer = ("fault", traceback.format_exc())
            pipe.send(answer)
    except EOFError:
        shutil.rmtree(work, ignore_errors=True)
