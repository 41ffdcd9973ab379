"""The demo of `make demo`: trains three detectors on the built-in sample `coins` and prints a table."""

import logging
from collections.abc import Sequence
from pathlib import Path

from defectlab.backbones.weights import find_weights
from defectlab.data.manifest.options import DataOptions
from defectlab.data.samples import make_sample
from defectlab.experiment import BackboneConfig, Experiment
from defectlab.results.run.run import Run
from defectlab.results.workbook import read_workbook
from defectlab.sweeps.run_many import run_many
from defectlab.utils import paths
from defectlab.utils.errors import InputError, WeightsError
from defectlab.visualization.terminal import runs_table

logger = logging.getLogger(__name__)

LAYERS = ["layer1", "layer2", "layer3"]


def run_demo(data: str, epochs: int) -> list[Run]:
    """Make the sample if absent, train PaDiM, PatchCore and CFlow, and print the table and the pictures' paths."""
    root = make_sample("coins", paths.resolve(data))
    backbone = demo_backbone()
    experiments = demo_experiments(root, backbone, epochs)
    runs = run_many(experiments, rerun=True)
    if len(runs) < len(experiments):
        raise InputError("The demo is not complete; the log above says what failed.")
    runs_table(runs, f"coins, {backbone.name} with {'random' if backbone.weights == 'random' else 'local'} weights")
    for run in runs:
        print(f"{run.model:<10} record {paths.relative(run.folder)}/run.json, "
              f"pictures {paths.relative(run.folder)}/pictures.png")  # fmt: skip
    ids = {run.record.run_id for run in runs}
    count = sum(row["run_id"] in ids for row in read_workbook())
    print(f"Workbook   {paths.relative(paths.workbook())} has {count} rows of these {len(runs)} runs")
    return runs


def demo_backbone() -> BackboneConfig:
    """Return the bundled backbone if it exists, else local ResNet-18 weights, else random weights with a warning."""
    for name in ("defectlab_resnet18", "resnet18"):
        try:
            find_weights(name)
            return BackboneConfig(name)
        except WeightsError as error:
            logger.debug("%s", error)
    logger.warning(
        "WARNING: no backbone weights here, so the demo uses RANDOM weights: the pipeline is real, the scores are "
        "poor. `defectlab weights get resnet18` fetches ImageNet weights."
    )
    return BackboneConfig("resnet18", "random")


def demo_experiments(root: Path, backbone: BackboneConfig, epochs: int) -> list[Experiment]:
    """Return the demo's three experiments; CFlow, the slowest, has a fiber batch size above its default of 64."""
    data = DataOptions(root=str(root), num_workers=0)
    models: Sequence[dict[str, object]] = (
        {"name": "padim", "layers": LAYERS, "n_features": 100},
        {"name": "patchcore", "layers": LAYERS[1:], "coreset_sampling_ratio": 0.01, "num_neighbors": 9},
        {"name": "cflow", "layers": LAYERS[1:], "fiber_batch_size": 256},
    )
    return [
        Experiment(data=data, backbone=backbone, model=dict(model), trainer={"max_epochs": epochs}) for model in models
    ]
