"""CFlow against plain anomalib, and how often it reads an image."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import data, fitted, small

from defectlab import Cflow, Engine
from defectlab.data.datasets import load_image
from defectlab.models.embedding_store import EmbeddingStore
from defectlab.results.run.run import Run
from defectlab_runtime.errors import OptionError


@pytest.mark.parametrize("tied", [True, False], ids=["one tensor", "many tensors"])
def test_cflow_losses_are_plain_anomalibs_under_the_same_draws(tied: bool):
    """Both train one step on one batch, from the same flows, with the fibers in the same order."""
    from anomalib.models import Cflow as Plain

    ours = small("cflow")
    options = {"coupling_blocks": 2, "fiber_batch_size": 32}
    plain = Plain(backbone="resnet18", layers=["layer2", "layer3"], pre_trained=False, **options)
    plain.model.load_state_dict(ours.model.state_dict())
    images = torch.rand(2, 3, 64, 64)
    theirs = _plain_cflow_step(plain, images)
    optimizer = ours.configure_optimizers() if tied else torch.optim.Adam(ours.model.decoders.parameters(), lr=1e-4)
    total = torch.zeros(1, dtype=torch.float64)
    for losses in ours.model.fit(ours.model.embed(ours.model.features(images)), torch.Generator().manual_seed(5)):
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        total += losses.detach().sum()
    assert float(total) == pytest.approx(float(theirs), rel=1e-6)
    for a, b in zip(ours.model.decoders.parameters(), plain.model.decoders.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def _plain_cflow_step(plain, images: torch.Tensor) -> torch.Tensor:
    optimizer = plain.configure_optimizers()
    plain.optimizers = lambda: optimizer
    plain.manual_backward = lambda loss: loss.backward()
    plain.log = lambda *_args, **_kwargs: None
    batch = type("Batch", (), {"image": images})()
    torch.manual_seed(5)
    return plain.training_step(batch)["loss"].detach()


def test_cflow_scores_are_plain_anomalibs_at_batch_size_one(parts: Path):
    from anomalib.models import Cflow as Plain

    ours, _ = fitted("cflow", parts)
    options = {"coupling_blocks": 2, "fiber_batch_size": 32}
    plain = Plain(backbone="resnet18", layers=["layer2", "layer3"], pre_trained=False, **options).eval()
    plain.model.load_state_dict(ours.model.state_dict())
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        together = ours.eval().model(images)
        one_by_one = [plain.model(image[None]) for image in images]
    for index, theirs in enumerate(one_by_one):
        assert float(together.pred_score[index]) == pytest.approx(float(theirs.pred_score[0]), rel=1e-5)
        assert torch.allclose(together.anomaly_map[index], theirs.anomaly_map, atol=1e-5)


def test_cflow_learns(parts: Path):
    model = small("cflow", lr=1e-3)
    Engine(max_epochs=4, enable_progress_bar=False).fit(model=model, datamodule=data(parts))
    losses = Run.open(model.run_folder).record.history["train_loss"]
    assert len(losses) == 4
    assert np.all(np.diff(losses) < 0)


def test_cflow_reads_each_training_image_once(parts: Path, monkeypatch: pytest.MonkeyPatch):
    read = Counter()

    def counted(path, *options):
        read[Path(path).parts[-3:]] += 1
        return load_image(path, *options)

    monkeypatch.setattr("defectlab.data.datasets.load_image", counted)
    seen = []
    monkeypatch.setattr(EmbeddingStore, "get", _spied(EmbeddingStore.get, seen))
    model = small("cflow")
    Engine(max_epochs=3, enable_progress_bar=False).fit(model=model, datamodule=data(parts))
    losses = Run.open(model.run_folder).record.history["train_loss"]
    training = [count for (split, *_), count in read.items() if split == "train"]
    assert training == [1] * 8
    assert [found is not None for found in seen] == [False] * 3 + [True] * 6
    monkeypatch.setattr(Cflow, "open_store", lambda *_: None)
    anew = small("cflow")
    Engine(max_epochs=3, enable_progress_bar=False).fit(model=anew, datamodule=data(parts))
    assert Run.open(anew.run_folder).record.history["train_loss"] == losses
    assert [count for (split, *_), count in read.items() if split == "train"] == [2] * 8  # pixels are kept as well


def _spied(method, seen: list):
    def call(*arguments):
        seen.append(method(*arguments))
        return seen[-1]

    return call


def test_a_last_short_batch_of_images_trains_too(parts: Path):
    model = small("cflow", fiber_batch_size=4096)
    Engine(max_epochs=1, enable_progress_bar=False).fit(model=model, datamodule=data(parts))
    assert Run.open(model.run_folder).status == "fitted"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fiber_batch_size": 0}, "fiber_batch_size"),
        ({"condition_vector": 126}, "multiple of 4"),
        ({"condition_vector": "128"}, "whole number"),
        ({"decoder": "all"}, "freia-cflow"),
        ({"lr": 0}, "lr"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        small("cflow", **options)
