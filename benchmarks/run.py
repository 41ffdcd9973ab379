"""All benchmarks against plain anomalib in one process: one table, benchmarks/results.md and a plot of growth.

    python -m benchmarks.run                     # everything, on DEFECTLAB_REAL's bottle where it is set
    python -m benchmarks.run --only padim maps   # some; the others' figures of an earlier run stay
    python -m benchmarks.run --render            # only write results.md again, from the figures on file
    python -m benchmarks.run --gpu               # the part for a GPU; says so and ends where there is none

Both sides run in turn, each after one warm-up, and medians count. Where plain would take longer than five minutes its
first picks or batches are timed and multiplied: "extrapolated".
"""

import argparse
import importlib
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from benchmarks.measure import growth, machine
from benchmarks.results import add, render
from benchmarks.table import Row, table

HERE = Path(__file__).parent
# name: module and its function for the CPU; a module's `gpu_rows`, where it has them, are the part for a GPU
BENCHMARKS = {
    "maps": ("bench_maps", "rows"),
    "padim": ("bench_padim", "rows"),
    "padim_wide": ("bench_padim", "wide_rows"),
    "cflow": ("bench_cflow", "rows"),
    "neighbours": ("bench_neighbours", "rows"),
    "coreset": ("bench_coreset", "rows"),
    "coreset_tenth": ("bench_coreset", "tenth_rows"),
    "coreset_long": ("bench_coreset", "long_rows"),
    "run": ("bench_run", "rows"),
}
GROWTH = (
    ("bench_padim", (256, 1024, 4096), "PaDiM, 100 features, 209 images", "positions"),
    ("bench_coreset", (5_000, 10_000, 20_000), "coreset of 10 %", "patches"),
    ("bench_neighbours", (2_500, 10_000, 40_000), "nearest row of 2,048 patches", "rows in the bank"),
    ("bench_cflow", (1, 4, 16), "CFlow scoring, given features", "images"),
)
logger = logging.getLogger(__name__)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description="Ratios of DefectLab to plain anomalib.")
    parser.add_argument("--only", nargs="*", choices=[*BENCHMARKS, "growth"], help="which benchmarks; all by default")
    parser.add_argument("--gpu", action="store_true", help="the part for a GPU")
    parser.add_argument("--render", action="store_true", help="only write results.md again")
    arguments = parser.parse_args()
    chosen = [*BENCHMARKS, "growth"] if arguments.only is None else arguments.only
    if arguments.gpu and not torch.cuda.is_available():
        print("There is no GPU here: nothing to measure.")
        return
    if not arguments.render:
        found = _run([name for name in chosen if name in BENCHMARKS], gpu=arguments.gpu)
        print(table(found))
        if "growth" in chosen and not arguments.gpu:
            plot_growth(HERE / "growth.png")
    (HERE / "results.md").write_text(render(HERE), encoding="utf-8")


def _run(names: Sequence[str], *, gpu: bool) -> list[Row]:
    """Run benchmarks one after another; each row is on file as soon as it is measured."""
    found: list[Row] = []
    for module, function in dict.fromkeys(
        (BENCHMARKS[name][0], "gpu_rows" if gpu else BENCHMARKS[name][1]) for name in names
    ):
        rows: Callable[[], Iterable[Row]] | None = getattr(_module(module), function, None)
        if rows is None:
            logger.warning("%s has no %s: nothing measured", module, function)
            continue
        for row in rows():
            print(table([row]).splitlines()[-1], flush=True)
            add(HERE / ("results_gpu.json" if gpu else "results.json"), row, machine())
            found.append(row)
    return found


def _module(name: str) -> object:
    return importlib.import_module(f"benchmarks.{name}")


def plot_growth(path: Path) -> None:
    """Draw seconds over size, plain and ours, of all that offers `growth_sides`."""
    from matplotlib.figure import Figure

    curves = []
    for module, sizes, title, label in GROWTH:
        sides = getattr(_module(module), "growth_sides", None)
        if sides is None:
            logger.warning("%s has no growth_sides: not in the plot", module)
            continue
        curves.append((title, label, growth(sides, sizes)))
    figure = Figure(figsize=(3.4 * len(curves), 3.2), layout="constrained")
    for axis, (title, label, points) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        sizes, plain, ours = zip(*points, strict=True)
        axis.loglog(sizes, plain, "o-", color="tab:gray", label="plain anomalib")
        axis.loglog(sizes, ours, "o-", color="tab:blue", label="DefectLab")
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(label)
        axis.set_ylabel("seconds")
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
