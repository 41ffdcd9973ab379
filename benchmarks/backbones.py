"""Two backbones side by side on four sets: run what is not on record, write the table of docs/backbones.md.

    python -m benchmarks.backbones                 # all of configs/backbones.yaml; ended early, it goes on
    python -m benchmarks.backbones --sets coins digits

The samples are made where they are absent; bottle and transistor are left out unless data/ or DEFECTLAB_REAL has them.
Each pair of runs is compared by the paired tests of `defectlab compare`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.every_model import ROOT, experiment_at_hand
from defectlab.results.comparison.paired_test import compare_runs
from defectlab.results.model_names import title
from defectlab.results.run.run import Run
from defectlab.sweeps.config import SweepConfig
from defectlab.utils.files import replace_between
from defectlab.utils.logs import show_log

CONFIG = ROOT / "configs" / "backbones.yaml"
PAGE = ROOT / "docs" / "backbones.md"
BEGIN, END = "<!-- two backbones: made by `python -m benchmarks.backbones` -->", "<!-- end of two backbones -->"
BACKBONES = ("resnet18", "efficientnet_lite0")
METRICS = ("image_AUROC", "pixel_AUROC", "pixel_AUPRO")


def table(runs: Sequence[Run]) -> str:
    """Return a line for each set and model, with both backbones' metrics and what the paired tests say."""
    header = ["set", "model", "test images (bad)"]
    for metric in METRICS:
        header += [f"{metric.replace('_', ' ')}: {BACKBONES[0]}", BACKBONES[1], "better"]
    lines = [header, ["---"] * 3 + ["---:", "---:", "---"] * len(METRICS)]
    pairs: dict[tuple[str, str], dict[str, Run]] = {}
    for run in runs:
        of_it = pairs.setdefault((run.record.dataset.name, run.record.experiment.model_name), {})
        of_it[run.record.backbone.name] = run
    for (dataset, model), of_it in pairs.items():
        if set(of_it) == set(BACKBONES):
            pair = [of_it[name] for name in BACKBONES]
            labels = [row.label for row in pair[0].scores("test")]
            cells = [cell for metric in METRICS for cell in _compared(pair, metric)]
            lines.append([dataset, title(model), f"{len(labels)} ({labels.count(1)})", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _compared(pair: Sequence[Run], metric: str) -> list[str]:
    """Return a metric of both runs, and which is better with the test's p-value, or that they tie."""
    if any(run.record.metrics.get(metric) is None for run in pair):
        return ["n/a", "n/a", ""]
    best, other = compare_runs(pair, metric)
    values = {one.run.folder: one.value for one in (best, other)}
    p = "no test" if other.p is None else "p < 0.001" if other.p < 0.001 else f"p = {other.p:.3f}"
    verdict = "tie" if other.tied else best.run.record.backbone.name
    return [*(f"{values[run.folder]:.3f}" for run in pair), f"{verdict}, {p}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and write; the exit code is 1 where a pair is missing."""
    from defectlab.sweeps.run_many import run_many

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sets", nargs="+", help="Run these sets only; the table then has only them.")
    given = parser.parse_args(arguments)
    show_log()
    every = [data for data in SweepConfig.from_yaml(CONFIG).expanded()
             if not given.sets or Path(data["data"]["root"]).name in given.sets]  # fmt: skip
    experiments = [one for data in every if (one := experiment_at_hand(data)) is not None]
    runs = run_many(experiments)
    replace_between(PAGE, BEGIN, END, table(runs))
    print(f"{PAGE.relative_to(ROOT)}: {len(runs)} of {len(every)} runs")
    return 0 if len(runs) == len(every) else 1


if __name__ == "__main__":
    sys.exit(main())
