"""Out of memory: inference goes on with half the batch; the batch size of a training is found by trial."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import data

from defectlab import Detector, Engine, SmallConvVae
from defectlab.engine.batch_size import find_batch_size
from defectlab.models.vae.torch_model import VaeModel
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError


def vae() -> SmallConvVae:
    return SmallConvVae(latent_dim=2, image_size=(16, 16))


def holds(monkeypatch: pytest.MonkeyPatch, cls: type, method: str, most: int, error: Exception | None = None) -> list:
    """Let a method run out of memory with more than `most` images; returns the sizes that came."""
    whole, sizes = getattr(cls, method), []

    def limited(self: Any, images: Any, *more: Any, **named: Any) -> Any:
        sizes.append(len(getattr(images, "image", images)))
        if sizes[-1] > most:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(self, images, *more, **named)

    monkeypatch.setattr(cls, method, limited)
    return sizes


@pytest.mark.row("3.23")
def test_testing_and_predicting_go_on_in_halves(
    parts: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    model, engine = vae(), Engine(max_epochs=1, enable_progress_bar=False)
    (metrics,) = engine.train(model=model, datamodule=data(parts))
    run = Run.open(model.run_folder)
    before = [row.score for row in run.scores("test")]
    files = [row.image_path for row in run.scores("test")]
    caplog.set_level(logging.WARNING, "defectlab")
    sizes = holds(monkeypatch, VaeModel, "forward", 1)
    (again,) = engine.test(model=model, datamodule=data(parts, eval_batch_size=4))
    assert again == pytest.approx(metrics, rel=1e-6)
    assert sizes == [4, 2, 1, 1, 1, 1]
    assert [row.score for row in Run.open(run.folder).scores("test")] == pytest.approx(before, rel=1e-5)
    assert "testing again with 2" in caplog.text
    sizes.clear()
    detector = Detector.load(run.folder)
    found = detector.predict(files, batch_size=3)
    assert [one.score for one in found] == pytest.approx(before, rel=1e-5)
    assert [one.image_path for one in found] == [str(path) for path in files]
    assert sizes == [3, 1, 1, 1, 1], "once is enough to learn it"
    assert "going on with 1" in caplog.text


def test_one_image_that_does_not_fit_and_other_errors_rise(parts: Path, monkeypatch: pytest.MonkeyPatch):
    detector = Detector(vae(), None, None)
    holds(monkeypatch, VaeModel, "forward", 0)
    with pytest.raises(torch.OutOfMemoryError):
        detector.predict(parts / "test/good")
    holds(monkeypatch, VaeModel, "forward", 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        detector.predict(parts / "test/good")


@pytest.mark.row("3.18", "R.5")
def test_the_largest_batch_that_works_is_found(parts: Path, monkeypatch: pytest.MonkeyPatch):
    model, images = vae(), data(parts)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sizes = holds(monkeypatch, SmallConvVae, "training_step", 4)
    assert find_batch_size(model, images, steps=1) == 4
    assert sizes == [2, 4, 8]
    assert images.train_batch_size == 3
    torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0, equal_nan=True)
    engine = Engine(max_epochs=1, enable_progress_bar=False, find_batch_size=True)
    before = engine.run_id(model, images)
    engine.fit(model=model, datamodule=images)
    record = Run.open(model.run_folder).record
    assert record.experiment.data["train_batch_size"] == 4
    assert images.train_batch_size == 3, "others may train with this datamodule too"
    assert record.run_id == before, "else it would never be known as trained already"
    assert record.experiment.trainer["find_batch_size"] is True
    with pytest.raises(InputError, match="Not even 8 images"):
        find_batch_size(model, images, start=8, steps=1)
    holds(monkeypatch, SmallConvVae, "training_step", 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        find_batch_size(model, images)
