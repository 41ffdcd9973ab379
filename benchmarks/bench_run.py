"""A whole PatchCore run on bottle, from image files to metrics, against plain anomalib."""

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from anomalib.models.components import KCenterGreedy
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torchvision.transforms.v2 import Compose, Normalize, Resize

from benchmarks.inputs import real, resnet18
from benchmarks.measure import timed
from benchmarks.table import Row
from defectlab import Engine, Folder, Patchcore
from defectlab.kernels.coreset.cost import coreset_size
from defectlab.results.run.run import Run

RATIO, NEIGHBOURS, LAYERS = 0.1, 9, ["layer2", "layer3"]
PICKS = 200  # of plain's coreset that are timed
TESTED = 12  # images that plain scores, twice


def rows() -> Iterator[Row]:
    """Yield the comparison; nothing without the real images."""
    folder = real()
    if folder is None:
        logging.getLogger(__name__).warning("DEFECTLAB_REAL is not set: no whole run on bottle")
        return
    with tempfile.TemporaryDirectory() as results, _own_workbook(Path(results)):
        ours, record, model, data = _ours(folder, Path(results))
    plain, parts, equal = _plain(model, data)
    metrics, timings = record.metrics, record.timings
    yield Row(
        "whole PatchCore 10 % run on bottle, images to metrics",
        plain,
        ours,
        None,
        None,
        f"{equal}; image AUROC {metrics['image_AUROC']:.4f}, pixel AUROC {metrics['pixel_AUROC']:.4f}",
        extrapolated=True,
        note=f"plain: {_listed(parts)}; ours: {_listed(timings)}, the rest is reading and writing",
        at_least=30,
    )


def _listed(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g} s" for name, value in seconds.items())


@contextlib.contextmanager
def _own_workbook(folder: Path) -> Iterator[None]:
    """Keep the run out of the project's own workbook."""
    before = os.environ.get("DEFECTLAB_WORKBOOK")
    os.environ["DEFECTLAB_WORKBOOK"] = str(folder / "models_comparing.xlsx")
    try:
        yield
    finally:
        os.environ.pop("DEFECTLAB_WORKBOOK")
        if before is not None:
            os.environ["DEFECTLAB_WORKBOOK"] = before


def _ours(folder: Path, results: Path) -> tuple[float, dict[str, Any], Patchcore, Folder]:
    begin = time.perf_counter()
    data = Folder(root=folder / "mvtec_bottle_512", train_batch_size=8, eval_batch_size=8, num_workers=0)
    model = Patchcore(backbone=resnet18(), layers=LAYERS, coreset_sampling_ratio=RATIO, num_neighbors=NEIGHBOURS)
    engine = Engine(default_root_dir=results, enable_progress_bar=False)
    engine.train(model=model, datamodule=data)
    seconds = time.perf_counter() - begin
    assert model.run_folder is not None
    return seconds, Run.open(model.run_folder).record, model, data


def _plain(ours: Patchcore, data: Folder) -> tuple[float, dict[str, float], str]:
    """Time plain's parts: features of all training images, the first picks, the first test images, the metrics."""
    plain = PatchcoreModel(backbone="resnet18", layers=LAYERS, pre_trained=False, num_neighbors=NEIGHBOURS)
    plain.feature_extractor.feature_extractor.load_state_dict(
        ours.model.feature_extractor.feature_extractor.state_dict()
    )
    transform = Compose(
        [Resize((256, 256), antialias=True), Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])]
    )
    from anomalib.data.utils.image import read_image

    def batches(split: str, most: int | None = None) -> Iterator[torch.Tensor]:
        files = [data.manifest.absolute(entry) for entry in data.manifest.split(split)][:most]
        for begin in range(0, len(files), 8):
            yield torch.stack([transform(read_image(file, as_tensor=True)) for file in files[begin : begin + 8]])

    plain.train()
    kept: list[torch.Tensor] = []

    def features() -> None:
        with torch.no_grad():
            kept.append(torch.cat([plain(batch) for batch in batches("train")]))

    parts = {"features": timed(features)}
    size = coreset_size(len(kept[0]), RATIO)
    parts["coreset"] = _coreset_seconds(kept[0]) * size
    kept.clear()
    plain.embedding_store.clear()
    plain.memory_bank = ours.model.memory_bank
    plain.eval()
    scored: list[torch.Tensor] = []
    tested, validated = (len(data.manifest.split(split)) for split in ("test", "validation"))

    def score() -> None:
        with torch.no_grad():
            scored.extend(plain(batch).pred_score.flatten() for batch in batches("test", TESTED))

    parts["scoring"] = timed(score) * (tested + validated) / TESTED
    parts["metrics"] = _metrics_seconds(tested, validated)
    with torch.no_grad():
        found = torch.cat([ours.model.eval()(batch).pred_score for batch in batches("test", TESTED)])
    expected = torch.cat(scored)
    apart = float(((found - expected).abs() / expected).max())
    return sum(parts.values()), parts, f"scores on one bank within {apart:.0e}"


def _coreset_seconds(rows: torch.Tensor) -> float:
    """Seconds a pick of plain's coreset."""
    sampler = KCenterGreedy(rows, sampling_ratio=RATIO)
    sampler.model.fit(rows)
    sampler.features = sampler.model.transform(rows)
    sampler.reset_distances()

    def picks(count: int = PICKS) -> None:
        index = torch.tensor(0)
        for _ in range(count):
            sampler.update_distances(index)
            index = sampler.get_new_idx()
            sampler.min_distances.scatter_(0, index.reshape(1, 1), 0.0)

    picks(3)  # a warm-up
    return timed(picks) / PICKS


def _metrics_seconds(tested: int, validated: int) -> float:
    """Seconds of what plain computes by default on so many maps: two pixel metrics, and the threshold on validation."""
    from anomalib.metrics.auroc import _AUROC
    from anomalib.metrics.threshold.f1_adaptive_threshold import _F1AdaptiveThreshold
    from torchmetrics.classification import BinaryF1Score

    random = torch.Generator().manual_seed(0)
    scores = torch.rand(tested + validated, 256, 256, generator=random)
    marks = (torch.rand(tested + validated, 256, 256, generator=random) < 0.05).int()

    def metrics() -> None:
        for metric, split in (
            (_F1AdaptiveThreshold(), slice(0, validated)),
            (_AUROC(), slice(validated, None)),
            (BinaryF1Score(), slice(validated, None)),
        ):
            metric.update(scores[split].flatten(), marks[split].flatten())
            metric.compute()

    return timed(metrics)
