"""On real photographs and real weights: figures to reach, and equality with plain anomalib."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from defectlab import Cflow, Engine, Folder, Padim, Patchcore, load_backbone
from defectlab.data.datasets import load_image
from defectlab.kernels.projection import sparse_projection
from defectlab.results.run.run import Run
from defectlab.utils.seeds import generator

pytestmark = pytest.mark.real
LAYERS = ["layer1", "layer2", "layer3"]


@pytest.fixture(scope="module")
def backbone(real: Path):
    return load_backbone("resnet18", weights=real / "weights/resnet18.pth")


def folder(real: Path, name: str) -> Folder:
    root = real / f"mvtec_{name}_512"
    return Folder(root=root, name=name, train_batch_size=8, eval_batch_size=8, num_workers=0)


def bottle(real: Path, **options: Any) -> Folder:
    return Folder(
        root=real / "mvtec_bottle_512", name="bottle", train_batch_size=8, eval_batch_size=8, num_workers=0, **options
    )


def transistor(real: Path) -> Folder:
    return Folder(
        root=real / "mvtec_transistor_512", name="transistor", train_batch_size=8, eval_batch_size=8, num_workers=0
    )


def trained(model: Any, data: Folder, **options: Any) -> tuple[Run, dict[str, float | None]]:
    (metrics,) = Engine(enable_progress_bar=False, **options).train(model=model, datamodule=data)
    return Run.open(model.run_folder), metrics


@pytest.mark.long
def test_padim_on_bottle(real: Path, backbone):
    _, metrics = trained(Padim(backbone=backbone, layers=LAYERS, n_features=100), bottle(real))
    assert metrics["image_AUROC"] >= 0.97
    assert metrics["pixel_AUROC"] >= 0.978


@pytest.mark.long
def test_patchcore_on_bottle(real: Path, backbone):
    model = Patchcore(backbone=backbone, layers=LAYERS[1:], coreset_sampling_ratio=0.01, num_neighbors=9)
    _, metrics = trained(model, bottle(real))
    assert metrics["image_AUROC"] >= 0.99
    assert metrics["pixel_AUROC"] >= 0.975


@pytest.mark.long
def test_cflow_on_bottle(real: Path, backbone):
    _, metrics = trained(Cflow(backbone=backbone, layers=LAYERS), bottle(real), max_epochs=1)
    assert metrics["image_AUROC"] >= 0.97
    assert metrics["pixel_AUROC"] >= 0.96


@pytest.mark.long
@pytest.mark.parametrize(
    ("build", "least"),
    [
        (lambda backbone: Padim(backbone=backbone, layers=LAYERS, n_features=100), 0.85),
        (lambda backbone: Patchcore(backbone=backbone, layers=LAYERS[1:], coreset_sampling_ratio=0.01), 0.95),
    ],
    ids=["padim", "patchcore"],
)
def test_transistor_has_image_metrics_only(real: Path, backbone, build: Callable, least: float):
    run, metrics = trained(build(backbone), transistor(real))
    assert metrics["image_AUROC"] >= least
    assert metrics["pixel_AUROC"] is None
    assert "mask" in run.record.metric_reasons["pixel_AUROC"]


@pytest.fixture(scope="module")
def images(real: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """A few real images, normalised at 256 px: (40, 3, 256, 256) to fit, (6, 3, 256, 256) to score."""
    transform = Padim(backbone=load_backbone("resnet18", weights="random"), n_features=1).preprocessing.transform()
    train = sorted((real / "mvtec_bottle_512/train/good").iterdir())[:40]
    test = [path for kind in sorted((real / "mvtec_bottle_512/test").iterdir()) for path in sorted(kind.iterdir())[:2]]
    return tuple(torch.stack([transform(load_image(path)) for path in paths]) for paths in (train, test[:6]))


def in_batches(function: Callable, batch: torch.Tensor) -> list:
    with torch.no_grad():
        return [function(part) for part in batch.split(8)]


def test_padims_scores_are_plain_anomalibs(backbone, images):
    from anomalib.models.image.padim.torch_model import PadimModel as Plain

    ours = Padim(backbone=backbone, layers=LAYERS, n_features=60).model.eval()
    plain = Plain(backbone="resnet18", layers=LAYERS, pre_trained=False, n_features=60)
    plain.feature_extractor.feature_extractor.load_state_dict(ours.feature_extractor.feature_extractor.state_dict())
    plain.idx = ours.idx
    train, test = images
    plain.train()
    in_batches(plain, train)
    plain.fit()
    plain.eval()
    ours.fit(ours.rows(torch.cat(in_batches(lambda part: ours.embed(ours.features(part)), train))))
    with torch.no_grad():
        theirs, mine = plain(test).pred_score.flatten(), ours(test).pred_score
    assert float(((mine - theirs).abs() / theirs).max()) <= 2e-5


def test_patchcores_bank_and_scores_are_plain_anomalibs(backbone, images, monkeypatch: pytest.MonkeyPatch):
    from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel as Plain

    ours = Patchcore(backbone=backbone, layers=LAYERS[1:], coreset_sampling_ratio=0.005, num_neighbors=9).model.eval()
    plain = Plain(backbone="resnet18", layers=LAYERS[1:], pre_trained=False, num_neighbors=9)
    plain.feature_extractor.feature_extractor.load_state_dict(ours.feature_extractor.feature_extractor.state_dict())
    train, test = images
    plain.train()
    rows = torch.cat(in_batches(plain, train))
    mine = ours.rows(torch.cat(in_batches(lambda part: ours.embed(ours.features(part)), train)))
    assert torch.equal(mine, rows)
    ours.fit(mine)
    sampler = KCenterGreedy(rows, 0.005)
    monkeypatch.setattr(sampler.model, "fit", lambda _rows: sampler.model)  # our projection and first pick
    sampler.model.sparse_random_matrix = sparse_projection(*rows.shape, generator=generator(42, "coreset projection"))
    first = torch.randint(len(rows), (1,), generator=generator(42, "coreset first pick"))
    monkeypatch.setattr(torch, "randint", lambda *_args, **_kwargs: first)
    plain.memory_bank = sampler.sample_coreset()
    assert torch.equal(ours.memory_bank, plain.memory_bank)
    plain.eval()
    with torch.no_grad():
        theirs, found = plain(test), ours(test)
    # invariant 2: 1e-4 of the score and 1e-3 of what rounding does to |x|
    norms = rows.norm(dim=1).max() * np.finfo(np.float32).eps ** 0.5
    difference = (found.pred_score - theirs.pred_score.flatten()).abs()
    assert bool((difference <= 1e-4 * theirs.pred_score.flatten() + 1e-3 * norms).all())
    assert torch.allclose(found.anomaly_map, theirs.anomaly_map, rtol=1e-4, atol=1e-3)
