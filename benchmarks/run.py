"""All benchmarks against plain anomalib in one process: one table, benchmarks/results.md and a plot of growth.

    python -m benchmarks.run                     # everything, on DEFECTLAB_REAL's bottle where it is set
    python -m benchmarks.run --only padim maps   # some
    python -m benchmarks.run --gpu               # the part for a GPU; says so and ends where there is none

Both sides run in turn, each after one warm-up, and medians count. Where plain would take longer than five minutes its
first picks or batches are timed and multiplied: "extrapolated".
"""

import argparse
import importlib
import json
import logging
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from benchmarks.measure import growth, machine
from benchmarks.table import Row, table

HERE = Path(__file__).parent
MODULES = ("maps", "padim", "cflow", "neighbours", "coreset", "run")
LIMITS = HERE / "limits.md"
logger = logging.getLogger(__name__)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description="Ratios of DefectLab to plain anomalib.")
    parser.add_argument("--only", nargs="+", choices=MODULES, default=list(MODULES), help="which benchmarks")
    parser.add_argument("--gpu", action="store_true", help="the part for a GPU")
    parser.add_argument("--no-growth", action="store_true", help="without the plot of growth")
    arguments = parser.parse_args()
    if arguments.gpu and not torch.cuda.is_available():
        print("There is no GPU here: nothing to measure.")
        return
    found = _run(arguments.only, gpu=arguments.gpu)
    print(table(found))
    path = HERE / ("results_gpu.json" if arguments.gpu else "results.json")
    kept = _kept(path, found)
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if not arguments.gpu and not arguments.no_growth and "padim" in arguments.only:
        _plot(HERE / "growth.png")
    (HERE / "results.md").write_text(render(), encoding="utf-8")


def _run(names: Sequence[str], *, gpu: bool) -> list[Row]:
    found: list[Row] = []
    for name in names:
        module = importlib.import_module(f"benchmarks.bench_{name}")
        rows = getattr(module, "gpu_rows" if gpu else "rows", None)
        for row in rows() if rows is not None else ():
            print(table([row]).splitlines()[-1], flush=True)
            found.append(row)
    return found


def _kept(path: Path, rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return all rows on file, those of the same name replaced; each has the day and machine of its own."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    named = {entry["row"]["what"]: entry for entry in before}
    named |= {row.what: {"row": vars(row), "date": f"{date.today()}", "machine": machine()} for row in rows}
    return list(named.values())


def render() -> str:
    """Return results.md from the rows on file."""
    parts = ["# Measured against plain anomalib", "", "Made by `make bench`; see README.md here for how.", ""]
    for title, name in (("On the CPU", "results.json"), ("On a GPU", "results_gpu.json")):
        path = HERE / name
        if not path.is_file():
            continue
        groups: dict[str, list[Row]] = {}
        for entry in json.loads(path.read_text(encoding="utf-8")):
            groups.setdefault("\n".join([f"Measured on {entry['date']}.", *entry["machine"]]), []).append(
                Row(**entry["row"])
            )
        parts += [f"## {title}", ""]
        for where, rows in groups.items():
            parts += [where, "", table(rows), ""]
    if (HERE / "growth.png").is_file():
        parts += ["## Growth with size", "", "![Seconds over size, plain and ours](growth.png)", ""]
    if LIMITS.is_file():
        parts.append(LIMITS.read_text(encoding="utf-8"))
    return "\n".join(parts).rstrip() + "\n"


def _plot(path: Path) -> None:
    """Draw seconds over size of what grows: positions of PaDiM, and what other benchmarks offer as `growth_sides`."""
    from matplotlib.figure import Figure

    curves = {}
    for name, sizes, label in (
        ("padim", (256, 1024, 4096), "PaDiM statistics: positions"),
        ("coreset", (5_000, 20_000, 80_000), "coreset, 100 picks: patches"),
        ("neighbours", (2_000, 8_000, 21_000), "neighbours of 2,048: bank"),
    ):
        try:
            sides = getattr(importlib.import_module(f"benchmarks.bench_{name}"), "growth_sides", None)
        except ModuleNotFoundError:
            logger.warning("benchmarks.bench_%s is not there: not in the plot", name)
            continue
        if sides is not None:
            curves[label] = growth(sides, sizes)
    figure = Figure(figsize=(3.6 * max(1, len(curves)), 3), layout="constrained")
    for axis, (label, points) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        sizes, plain, ours = zip(*points, strict=True)
        axis.loglog(sizes, plain, "o-", color="tab:gray", label="plain anomalib")
        axis.loglog(sizes, ours, "o-", color="tab:blue", label="DefectLab")
        axis.set_xlabel(label)
        axis.set_ylabel("seconds")
        axis.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
