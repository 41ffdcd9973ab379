"""Pixel metrics against anomalib's own (torchmetrics inside) in one process: time and peak memory, as ratios.

    python -m benchmarks.bench_metrics                  # 100 maps of 256 x 256, and 1,000 of 512 x 512 from disk
    python -m benchmarks.bench_metrics --only small     # a minute rather than many
    python -m benchmarks.bench_metrics --threads 1      # processor time on one thread, for a shared machine

anomalib computes AUROC, AUPR, F1Max and AUPRO, one after the other; ours these four and seven more. At the large size
anomalib is timed on the first 100 maps and multiplied by ten (the line says so), which favours it: sorting grows faster
than its number of pixels. Memory is what the process holds beyond the maps themselves, pages of mapped files left out
(Linux only). `benchmarks/README.md` has measured figures.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.metrics.aupr import _AUPR
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.auroc import _AUROC
from anomalib.metrics.f1_score import _F1Max
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.measure import peak_mib
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages
from defectlab.evaluation.pixel.metrics import pixel_metrics
from defectlab.results.run.arrays import pack_masks
from defectlab_runtime.geometry import resize_bilinear

PLAIN = {"AUROC": _AUROC, "AUPR": _AUPR, "F1Max": _F1Max, "AUPRO": _AUPRO}
FEWER = 100  # maps of the large size that anomalib is timed on


@dataclass(frozen=True)
class Cost:
    """What one computation of all metrics took.

    Attributes:
        seconds: By the clock; of the processor with one thread.
        peak: MiB held at the peak, None where that cannot be measured.
        values: The metrics.
    """

    seconds: float
    peak: float | None
    values: dict[str, float]


def made_up(number: int, size: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """One map (size, size) as a patch model gives it, and its mask: every other image has defects."""
    draw = np.random.default_rng(number)
    mask = np.zeros((size, size), dtype=np.bool_)
    if number % 2:
        mask = resize_bilinear(ndimage.gaussian_filter(draw.normal(size=(64, 64)), 3).astype(np.float32), mask.shape)
        mask = mask > 0.13
    patches = draw.normal(2, 0.4, size=(32, 32)).astype(np.float32)
    anomaly_map = ndimage.gaussian_filter(resize_bilinear(patches, mask.shape) + 0.6 * mask, 4)
    return anomaly_map.astype(np.float32), mask


def measured(work: Callable[[], dict[str, float]]) -> Cost:
    """Run once: seconds, and the peak of the memory that is no file's."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    runs: list[tuple[float, dict[str, float]]] = []

    def timed_work() -> None:
        begin = clock()
        values = work()
        runs.append((clock() - begin, values))

    peak = peak_mib(timed_work)
    seconds, values = runs[0]
    return Cost(seconds, peak, values)


def plain(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> dict[str, float]:
    """Return the four that anomalib has."""
    scores, marks = torch.from_numpy(maps), torch.from_numpy(masks).int()
    values = {}
    for name, metric_class in PLAIN.items():
        metric: Any = metric_class()
        metric.update(scores, marks) if name == "AUPRO" else metric.update(scores.flatten(), marks.flatten())
        values[name] = float(metric.compute())
    return values


def ours(maps: NDArray[np.float32], masks: NDArray[Any]) -> dict[str, float]:
    """Return all of ours."""
    found = pixel_metrics(ArrayImages(maps, masks), threshold=2.5)
    return {name: metric.value for name, metric in found.items() if metric.value is not None}


def small(repeats: int) -> str:
    """100 maps of 256 x 256 in memory, the two sides in turn."""
    pairs = [made_up(number, 256) for number in range(100)]
    maps, masks = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
    ours(maps[:4], masks[:4]), plain(maps[:4], masks[:4])
    runs = [(measured(lambda: plain(maps, masks)), measured(lambda: ours(maps, masks))) for _ in range(repeats)]
    return line(f"100 maps of 256 x 256, {repeats} times in turn", [r[0] for r in runs], [r[1] for r in runs])


def large(count: int) -> str:
    """Maps of 512 x 512 from disk; anomalib on the first hundred in memory, times `count` / 100."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "maps.npy"
        on_disk = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, 512, 512))
        packed = np.empty((count, 512, 64), dtype=np.uint8)
        first = []
        for number in range(count):
            on_disk[number], mask = made_up(number, 512)
            packed[number] = pack_masks(mask[None])[0]
            first += [mask] if number < FEWER else []
        on_disk.flush()
        maps = np.load(path, mmap_mode="r")
        whole = measured(lambda: ours(maps, packed))
        few = np.array(maps[:FEWER])
        theirs, same = (measured(lambda side=side: side(few, np.stack(first))) for side in (plain, ours))
        scale = count / FEWER
        scaled = Cost(theirs.seconds * scale, theirs.peak * scale if theirs.peak else None, theirs.values)
        return "\n".join(
            [
                line(f"the first {FEWER} maps of 512 x 512, in memory", [theirs], [same]),
                line(
                    f"{count} maps of 512 x 512, ours from disk, anomalib extrapolated from {FEWER}", [scaled], [whole]
                ),
            ]
        )


def line(name: str, theirs: list[Cost], mine: list[Cost]) -> str:
    """Render one comparison: medians, ratios, the range of the ratios of time, and how far apart the values are."""
    ratios = [a.seconds / b.seconds for a, b in zip(theirs, mine, strict=True)]
    text = (
        f"{name}: anomalib {statistics.median(c.seconds for c in theirs):.2f} s, "
        f"ours {statistics.median(c.seconds for c in mine):.2f} s, {statistics.median(ratios):.0f}x in time"
    )
    if len(ratios) > 1:
        text += f" ({min(ratios):.0f}x to {max(ratios):.0f}x)"
    peaks = [max((c.peak or 0.0) for c in side) for side in (theirs, mine)]
    if min(peaks) > 0:
        text += f"; peak memory {peaks[0]:.0f} MiB against {peaks[1]:.0f} MiB, {peaks[0] / peaks[1]:.1f}x"
    if "extrapolated" not in name:
        apart = {key: abs(value - mine[0].values[key]) for key, value in theirs[0].values.items()}
        text += "; apart: " + ", ".join(f"{key} {value:.0e}" for key, value in apart.items())
    return text


def main() -> None:
    """Run both sizes and print a line each."""
    parser = argparse.ArgumentParser(description="Time and memory of pixel metrics, against anomalib's own.")
    parser.add_argument("--only", choices=["small", "large"])
    parser.add_argument("--repeats", type=int, default=5, help="of the small size")
    parser.add_argument("--count", type=int, default=1000, help="maps of the large size")
    parser.add_argument("--threads", type=int, help="1: processor time on one thread, for a shared machine")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"torch threads {torch.get_num_threads()}, load {os.getloadavg()[0]:.1f}", flush=True)
    if arguments.only != "large":
        print(small(arguments.repeats), flush=True)
    if arguments.only != "small":
        print(large(arguments.count), flush=True)


if __name__ == "__main__":
    main()
