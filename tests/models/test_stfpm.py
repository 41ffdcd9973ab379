"""STFPM against plain anomalib, and its options."""

import logging
import re
from pathlib import Path

import pytest
import torch
from helpers.models import data, small

from defectlab import Engine
from defectlab.backbones.recognition import as_backbone
from defectlab.models.stfpm import untrained
from defectlab.results.run.run import Run
from defectlab_runtime.errors import OptionError


def plain_of(model, monkeypatch: pytest.MonkeyPatch):
    """Plain anomalib's STFPM with the same weights; its teacher would be downloaded, so that is turned off."""
    import timm
    from anomalib.models import Stfpm as Plain

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: create(*args, **{**kwargs, "pretrained": False}))
    plain = Plain(backbone="resnet18", layers=["layer1", "layer2"])
    plain.model.load_state_dict(model.model.state_dict())
    return plain


@pytest.mark.row("4.7")
def test_maps_loss_and_step_are_plain_anomalibs(monkeypatch: pytest.MonkeyPatch):
    ours = small("stfpm")
    plain = plain_of(ours, monkeypatch)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours.log_losses = lambda *args, **kwargs: None
    plain.log = lambda *args, **kwargs: None
    batch = type("Batch", (), {"image": images})()
    for model in (ours, plain):
        optimizer = model.configure_optimizers()
        model.train()
        for _ in range(2):
            optimizer.zero_grad()
            loss = model.training_step(batch)["loss"]
            loss.backward()
            optimizer.step()
        model.last = loss.item()
    assert ours.last == pytest.approx(plain.last, rel=1e-6)
    with torch.no_grad():
        mine, theirs = ours.eval().model(images), plain.eval().model(images)
    assert torch.allclose(mine.anomaly_map, theirs.anomaly_map, rtol=1e-4, atol=1e-7)
    assert torch.allclose(mine.pred_score, theirs.pred_score.flatten(), rtol=1e-4)


def test_the_student_is_another_network_and_the_seeds_alone(parts: Path):
    first, again, other = small("stfpm"), small("stfpm"), small("stfpm", seed=1)
    key = "student_model.feature_extractor.layer1.0.conv1.weight"
    states = [model.model.state_dict() for model in (first, again, other)]
    assert torch.equal(states[0][key], states[1][key])
    assert not torch.equal(states[0][key], states[2][key])
    assert not torch.equal(states[0][key], states[0][key.replace("student", "teacher")])
    assert not any(parameter.requires_grad for parameter in first.model.teacher_model.parameters())


def test_a_module_of_unknown_code_gets_a_fresh_student_or_is_refused():
    class Own(torch.nn.Module):
        def __init__(self, part: torch.nn.Module) -> None:
            super().__init__()
            self.layer1 = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2), part)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer1(images)

    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(1))

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values * self.factor

    own = Own(torch.nn.ReLU())
    before = own.layer1[0].weight.clone()
    fresh = untrained(as_backbone(own), seed=0)
    assert not torch.equal(fresh.layer1[0].weight, before)
    assert torch.equal(own.layer1[0].weight, before)
    with pytest.raises(OptionError, match=r"layer1\.1.*reset_parameters"):
        small("stfpm", backbone=Own(Scale()), layers=["layer1"])


@pytest.mark.row("3.2", "4.7", "4.11")
def test_the_best_epoch_by_validation_error_is_kept(parts: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "defectlab")
    model = small("stfpm")
    images = data(parts, val_split_mode="from_train", val_split_ratio=0.25)
    engine = Engine(max_epochs=3, monitor="val_good_loss", enable_progress_bar=False)
    engine.fit(model=model, datamodule=images)
    run = Run.open(model.run_folder)
    errors = run.record.history["val_good_loss"]
    assert run.record.monitor.best_epoch == errors.index(min(errors)) + 1
    assert run.record.dataset.counts["validation"] == {"good": 2}
    assert float(run.maps("validation").mean()) == pytest.approx(min(errors), rel=1e-5)
    lines = [line.split("\t") for line in (run.folder / "log.txt").read_text().splitlines()]
    epochs = [line for *_, line in lines if line.startswith("Epoch ")]
    assert len(epochs) == 3
    assert re.fullmatch(
        r"Epoch 1 of 3: train_loss [\d.e-]+, .*lr 0\.4, [\d.e-]+ s a batch \([\d.e-]+ s .*\)", epochs[0]
    )
    assert all(re.fullmatch(r"2\d{3}-\d\d-\d\d .*", when) for when, *_ in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "lr"),
        ({"momentum": 2}, "momentum"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"learning_rate": 1}, "no option 'learning_rate'"),
        ({"layers": ["layer9"]}, "layer4"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        small("stfpm", **options)
