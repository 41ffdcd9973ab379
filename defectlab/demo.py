"""`make demo`: the three detectors on the built-in sample `coins`, from images to a table and pictures."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from defectlab import paths
from defectlab.backbones import find_weights
from defectlab.data.images import read_image
from defectlab.data.samples import make_sample
from defectlab.errors import WeightsError
from defectlab.experiment import BackboneConfig, DataConfig, Experiment, run_many
from defectlab.predict import Detector
from defectlab.results.plots import colour_map, contour, overlay, panel, save_image
from defectlab.results.record import Run
from defectlab.results.show import runs_table
from defectlab.scoring import as_uint8

logger = logging.getLogger(__name__)

LAYERS = ["layer1", "layer2", "layer3"]


def run_demo(data: str, epochs: int) -> list[Run]:
    """Make the sample where it is absent, train PaDiM, PatchCore and CFlow, print the table and the pictures' place."""
    root = make_sample("coins", paths.resolve(data))
    backbone = demo_backbone()
    runs = run_many(demo_experiments(root, backbone, epochs))
    for run in runs:
        save_image(run.folder / "pictures.png", pictures(run))
    runs_table(runs, f"coins, {backbone.name} with {'random' if backbone.weights == 'random' else 'local'} weights")
    for run in runs:
        print(f"{run.folder.parent.parent.name:<10} record {paths.relative(run.folder)}/run.json, "
              f"pictures {paths.relative(run.folder)}/pictures.png")  # fmt: skip
    return runs


def demo_backbone() -> BackboneConfig:
    """Return the bundled backbone if there is one, else local ResNet-18 weights, else random ones, with a warning."""
    for name in ("defectlab_resnet18", "resnet18"):
        try:
            return BackboneConfig(name, str(find_weights(name)))
        except WeightsError as error:
            logger.debug("%s", error)
    logger.warning(
        "WARNING: no backbone weights here, so the demo uses RANDOM weights: the pipeline is real, the scores are "
        "poor. `defectlab weights get resnet18` fetches ImageNet weights."
    )
    return BackboneConfig("resnet18", "random")


def demo_experiments(root: Path, backbone: BackboneConfig, epochs: int) -> list[Experiment]:
    """Return the demo's three experiments; CFlow with larger fiber batches than its 64, for it is the slow one."""
    data = DataConfig(root=str(root), num_workers=0)
    models: Sequence[dict[str, object]] = (
        {"name": "padim", "layers": LAYERS, "n_features": 100},
        {"name": "patchcore", "layers": LAYERS[1:], "coreset_sampling_ratio": 0.01, "num_neighbors": 9},
        {"name": "cflow", "layers": LAYERS[1:], "fiber_batch_size": 256},
    )
    return [
        Experiment(data=data, backbone=backbone, model=dict(model), trainer={"max_epochs": epochs}) for model in models
    ]


def pictures(run: Run, count: int = 4) -> np.ndarray:
    """Return a panel: test images with their map, all on one scale, and the outline of what was found."""
    detector = Detector.load(run.folder)
    low, high = detector.map_range
    rows = sorted(run.scores("test"), key=lambda row: row.score)
    chosen = [rows[round(place * (len(rows) - 1) / (count - 1))] for place in range(count)]
    tiles, captions = [], []
    for row, found in zip(chosen, detector.predict([row.image_path for row in chosen]), strict=True):
        image = as_uint8(read_image(paths.resolve(row.image_path)))
        outlined = image if found.mask is None else contour(image, found.mask)
        tiles.append(
            [image, colour_map(found.anomaly_map, low, high), overlay(image, found.anomaly_map, low, high), outlined]
        )
        verdict = {1: "anomalous", 0: "good", -1: "undecided"}[found.label]
        captions.append(f"{Path(row.image_path).name} ({row.defect}): score {found.score:.3f}, {verdict}")
    return panel(tiles, ("image", "anomaly map", "overlay", "found"), captions)
