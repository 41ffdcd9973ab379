"""Time and memory of two sides in one process."""

import contextlib
import ctypes
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], Any]


def timed(work: Work) -> float:
    """Seconds of one call, by the clock; what a GPU still has to do counts."""
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def alternate(plain: Work, ours: Work, repeats: int = 5, *, warm: bool = True) -> tuple[float, float]:
    """Median seconds of each, in turn so that both meet the same load; `warm` runs both once before."""
    if warm:
        plain(), ours()
    times = [(timed(plain), timed(ours)) for _ in range(repeats)]
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


def peak_mib(work: Work) -> float | None:
    """MiB that one call holds at its peak above what was held before; None where the system does not say (Linux only).

    Memory that belongs to no file, looked at every five milliseconds and once more while the result is held: work that
    keeps the interpreter to itself lets no other thread look.
    """
    _give_back()
    before = _own_kib()
    if before is None:
        return None
    peak, done = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, _own_kib() or 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = work()
        peak = max(peak, _own_kib() or 0)
        del result
    finally:
        done.set()
        watcher.join()
    return (peak - before) / 1024


def relative(ours: torch.Tensor, plain: torch.Tensor) -> float:
    """Largest difference over the plain value, of all entries."""
    return float(((ours - plain).abs() / plain.abs().clamp(min=1e-12)).max())


def machine() -> list[str]:
    """Lines that say where figures were measured."""
    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    name = next((line.split(":", 1)[1].strip() for line in names if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    packages = ("anomalib", "torch", "torchvision", "timm", "lightning", "numpy")
    return [
        f"Machine: {name or platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, {memory:.0f} GB{gpu}, {platform.system()}",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages),
    ]


def growth(work: Callable[[int], tuple[Work, Work]], sizes: Sequence[int]) -> list[tuple[int, float, float]]:
    """(size, plain seconds, our seconds) for each size; `work` makes the two sides of one size."""
    found = []
    for size in sizes:
        plain, ours = work(size)
        found.append((size, *alternate(plain, ours, repeats=1)))
    return found


def _own_kib() -> int | None:
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    return next((int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssAnon")), None)


def _give_back() -> None:
    """Return freed memory to the system, or what one side freed would serve the other unseen (Linux, glibc)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
