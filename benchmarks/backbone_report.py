"""How far our own backbone closes the gap between random and ImageNet weights: the table of weights/README.md.

    python -m benchmarks.backbone_report                  # coins, digits; with DEFECTLAB_REAL also bottle, transistor
    python -m benchmarks.backbone_report --render         # only write the table again, from the records

Each (set, weights) needs its features once; detectors and seeds share them. Records are kept in
`benchmarks/backbone_report.json` under the weights' sha256: a second run computes only what is missing.
"""

import argparse
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.backbone_table import render
from defectlab import Padim, Patchcore, load_backbone
from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.data.datasets import load_image
from defectlab.data.samples import make_sample
from defectlab.evaluation.metrics import auroc, sort_scores
from defectlab.utils import paths
from defectlab.utils.files import write_json

logger = logging.getLogger(__name__)

RECORDS = Path(__file__).with_name("backbone_report.json")
LAYERS = ["layer1", "layer2", "layer3"]
MODELS = {
    "PatchCore": lambda backbone, seed: Patchcore(
        backbone=backbone, layers=LAYERS[1:], coreset_sampling_ratio=0.01, num_neighbors=9, seed=seed
    ),
    "PaDiM": lambda backbone, seed: Padim(backbone=backbone, layers=LAYERS, n_features=100, seed=seed),
}
SEEDS = (42, 43, 44)
SMALL = 0.01  # share of the image below which a defect counts as small


@dataclass(frozen=True)
class Record:
    """One detector on one set: AUROC of images, of pixels, and of pixels in good images and those of small defects."""

    dataset: str
    weights: str
    sha256: str
    model: str
    seed: int
    image: float | None
    pixel: float | None
    small: float | None


@dataclass(frozen=True)
class Images:
    """Normalised images (N, 3, 256, 256), labels (N,) with 1 for anomalous, masks (N, 256, 256) or None."""

    train: torch.Tensor
    test: torch.Tensor
    labels: np.ndarray
    masks: np.ndarray | None


def load_images(root: Path) -> Images:
    """Read a dataset in the MVTec layout."""
    backbone = load_backbone("resnet18", weights="random")
    transform = Padim(backbone=backbone, n_features=1).preprocessing.transform()

    def stacked(files: list[Path]) -> torch.Tensor:
        return torch.stack([transform(load_image(file)) for file in files])

    test = sorted(file for file in (root / "test").glob("*/*") if file.is_file())
    labels = np.array([file.parent.name != "good" for file in test])
    masks = None
    if (root / "ground_truth").is_dir():
        masks = np.zeros((len(test), 256, 256), dtype=bool)
        for index in np.flatnonzero(labels):
            file = test[index]
            with Image.open(root / "ground_truth" / file.parent.name / f"{file.stem}_mask.png") as mask:
                masks[index] = np.asarray(mask.convert("L").resize((256, 256), Image.Resampling.NEAREST)) > 127
    return Images(stacked(sorted((root / "train" / "good").iterdir())), stacked(test), labels.astype(int), masks)


def features_of(backbone: Backbone, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return {layer: (N, C, h, w)}."""
    extractor = FeatureExtractor(backbone, LAYERS)
    parts = [extractor(part) for part in images.split(10)]
    return {layer: torch.cat([part[layer] for part in parts]) for layer in LAYERS}


@torch.no_grad()
def measure(
    name: str, seed: int, backbone: Backbone, train: dict[str, torch.Tensor], test: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit one detector on stored features; return scores (N,) and maps (N, 256, 256) of the test images."""
    model = MODELS[name](backbone, seed).model
    model.fit(model.rows(model.embed({layer: train[layer] for layer in model.layers})))
    scores, maps = [], []
    for start in range(0, len(test["layer1"]), 10):
        part = {layer: test[layer][start : start + 10] for layer in model.layers}
        score, map_ = model.score(model.embed(part), (256, 256))
        scores.append(score.flatten())
        maps.append(map_[:, 0])
    return torch.cat(scores), torch.cat(maps)


def record(dataset: str, weights: str, sha256: str, model: str, seed: int, images: Images, found: tuple) -> Record:
    """Compute the three figures of one detector."""
    scores, maps = (tensor.numpy() for tensor in found)
    pixel = small = None
    if images.masks is not None:
        share = images.masks.mean(axis=(1, 2))
        few = (images.labels == 0) | ((share > 0) & (share < SMALL))
        pixel = auroc(sort_scores(maps, images.masks)).value
        small = auroc(sort_scores(maps[few], images.masks[few])).value
    return Record(dataset, weights, sha256, model, seed, auroc(sort_scores(scores, images.labels)).value, pixel, small)


def datasets() -> dict[str, Path]:
    """Return the sets that are at hand."""
    folder = paths.resolve("build/backbone_report")
    found = {
        "coins": make_sample("coins", folder / "coins"),
        "digits": make_sample("digits", folder / "digits", limit_data=20),
    }
    real = os.environ.get("DEFECTLAB_REAL")
    if real:
        found |= {name: Path(real) / f"mvtec_{name}_512" for name in ("bottle", "transistor")}
    return found


def backbones() -> dict[str, Backbone]:
    """Return the weights that are at hand: random, ours and, where its file is there, ImageNet."""
    found = {"random": load_backbone("resnet18", weights="random")}
    try:
        found["defectlab"] = load_backbone("defectlab_resnet18")
    except Exception as error:  # while it is being made
        logger.warning("%s", error)
    real = os.environ.get("DEFECTLAB_REAL")
    if real and (file := Path(real) / "weights" / "resnet18.pth").is_file():
        found["ImageNet"] = load_backbone("resnet18", weights=file)
    return found


def main() -> None:
    """Measure what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--sets", nargs="+", help="default: all that are at hand")
    options = parser.parse_args()
    known = [Record(**row) for row in json.loads(RECORDS.read_text())] if RECORDS.is_file() else []
    if not options.render:
        at_hand = datasets()
        for dataset in options.sets or at_hand:
            known = measured(dataset, at_hand[dataset], known, options.seeds)
    latest = {r.weights: r.sha256 for r in known}  # of our own weights, which change, those measured last
    render([asdict(r) for r in known if r.sha256 == latest[r.weights]], paths.resolve("weights/README.md"))


def measured(dataset: str, root: Path, known: list[Record], seeds: list[int]) -> list[Record]:
    """Return the records with those of one set added; they are written after each."""
    done = {(r.dataset, r.sha256, r.model, r.seed) for r in known}
    images = None
    for weights, backbone in backbones().items():
        sha256 = backbone.weights.sha256
        todo = [(m, s) for m in MODELS for s in seeds if (dataset, sha256, m, s) not in done]
        if not todo:
            continue
        images = images or load_images(root)
        train, test = features_of(backbone, images.train), features_of(backbone, images.test)
        for model, seed in todo:
            found = measure(model, seed, backbone, train, test)
            known = [*known, record(dataset, weights, sha256, model, seed, images, found)]
            write_json(RECORDS, [asdict(r) for r in known])
            print(dataset, weights, model, seed, known[-1].image, known[-1].pixel, known[-1].small, flush=True)
    return known


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
