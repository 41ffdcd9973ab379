"""The demo of `make demo`: trains three detectors on the built-in sample `coins` and prints a table."""

from collections.abc import Sequence
from pathlib import Path

from defectlab.backbones.registry import DEFAULT
from defectlab.data.manifest.options import DataOptions
from defectlab.data.samples import make_sample
from defectlab.experiment import BackboneConfig, Experiment
from defectlab.results.run.run import Run
from defectlab.results.workbook import read_workbook
from defectlab.sweeps.run_many import run_many
from defectlab.utils import paths
from defectlab.visualization.terminal import runs_table
from defectlab_runtime.errors import InputError

LAYERS = ["blocks.1", "blocks.2", "blocks.4"]  # of strides 4, 8, 16


def run_demo(data: str, epochs: int) -> list[Run]:
    """Make the sample if absent, train PaDiM, PatchCore and CFlow, and print the table and the pictures' paths."""
    root = make_sample("coins", paths.resolve(data))
    experiments = demo_experiments(root, epochs)
    runs = run_many(experiments, rerun=True)
    if len(runs) < len(experiments):
        raise InputError("The demo is not complete; the log above says what failed.")
    runs_table(runs, f"coins, {DEFAULT} with ImageNet weights")
    for run in runs:
        print(f"{run.model:<10} record {paths.relative(run.folder)}/run.json, "
              f"pictures {paths.relative(run.folder)}/pictures.png")  # fmt: skip
    ids = {run.record.run_id for run in runs}
    count = sum(row["run_id"] in ids for row in read_workbook())
    print(f"Workbook   {paths.relative(paths.workbook())} has {count} rows of these {len(runs)} runs")
    return runs


def demo_experiments(root: Path, epochs: int) -> list[Experiment]:
    """Return the demo's three experiments; CFlow, the slowest, takes larger steps, on standardised features."""
    data = DataOptions(root=str(root), num_workers=0)
    models: Sequence[dict[str, object]] = (
        {"name": "padim", "layers": LAYERS, "n_features": 100},
        {"name": "patchcore", "layers": LAYERS[1:], "coreset_sampling_ratio": 0.01, "num_neighbors": 9},
        {"name": "cflow", "layers": LAYERS[1:], "fiber_batch_size": 1024, "lr": 0.001, "scale_features": True},
    )
    return [
        Experiment(data=data, backbone=BackboneConfig(DEFAULT), model=dict(model), trainer={"max_epochs": epochs})
        for model in models
    ]
