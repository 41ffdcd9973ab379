"""What holds of every model, whatever it is: each is listed once (`helpers.models.SMALL`) and trained once."""

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anomalib.models
import numpy as np
import pytest
import torch
import torchvision
from helpers.datasets import make_parts
from helpers.models import SMALL, SmallModel, data, small
from lightning.pytorch import seed_everything

from defectlab import Detector, Engine, load_backbone
from defectlab.models.checkpoint import read_checkpoint_record
from defectlab.models.convert import to_anomalib
from defectlab.models.registry import MODELS
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError, OptionError


def names(condition: str = "") -> list[Any]:
    """Return the models for which a flag is set, as parameters of tests."""
    chosen = [name for name, one in SMALL.items() if not condition or getattr(one, condition)]
    return [pytest.param(name, marks=[pytest.mark.long] if SMALL[name].long else []) for name in chosen]


@dataclass
class Fitted:
    name: str
    model: Any
    run: Run
    results: Path

    @property
    def detector(self) -> Detector:
        return Detector.load(self.run.folder)

    @property
    def small(self) -> SmallModel:
        return SMALL[self.name]


def train(name: str, root: Path, results: Path, epochs: int = 0, model: Any = None, **options: Any) -> tuple[Any, Run]:
    model = model or small(name, **options)
    epochs = epochs or SMALL[name].epochs
    engine = Engine(
        max_epochs=epochs, check_val_every_n_epoch=epochs, default_root_dir=results, enable_progress_bar=False
    )
    engine.train(model=model, datamodule=data(root, train_batch_size=SMALL[name].train_batch_size))
    return model, Run.open(model.run_folder)


def scores(run: Run, split: str | None = None) -> list[float]:
    return [row.score for row in run.scores(*([split] if split else []))]


@pytest.fixture(scope="module")
def trained_models() -> dict[str, Fitted]:
    """The models that a test of this module has trained."""
    return {}


@pytest.fixture
def fitted(
    name: str, parts: Path, tmp_path_factory: pytest.TempPathFactory, trained_models: dict[str, Fitted]
) -> Fitted:
    if name not in trained_models:
        results = tmp_path_factory.mktemp("results")
        trained_models[name] = Fitted(name, *train(name, parts, results), results)
    return trained_models[name]


@pytest.mark.row("3.12")
def test_every_model_is_under_contract():
    assert set(MODELS) == set(SMALL)


@pytest.mark.parametrize("name", names())
class TestEveryModel:
    def test_scores_and_maps_are_finite_and_the_run_is_finished(self, fitted: Fitted):
        assert fitted.run.status == "finished"
        for split in ("validation", "test"):
            rows = fitted.run.scores(split)
            assert rows
            assert all(math.isfinite(row.score) for row in rows)
            assert np.isfinite(fitted.run.maps(split)).all()
            assert fitted.run.maps(split).shape == (len(rows), *fitted.model.preprocessing.input_size)
        losses = fitted.run.record.history.get("train_loss", [])
        assert len(losses) == (0 if MODELS[fitted.name].epochs else fitted.small.epochs)
        assert all(loss is not None for loss in losses)

    def test_it_is_better_than_chance_on_an_easy_sample(self, fitted: Fitted):
        rows = fitted.run.scores()
        bad, good = ([row.score for row in rows if row.label == label] for label in (1, 0))
        auroc = np.mean([[b > g for g in good] for b in bad])
        assert auroc > 0.75
        assert fitted.run.record.metrics["pixel_AUROC"] > 0.6

    def test_the_four_parts_make_forward(self, fitted: Fitted):
        size = fitted.model.preprocessing.input_size
        images = torch.rand(2, 3, *size)
        model = fitted.model.model.eval()
        with torch.no_grad():
            score, maps = model.score(model.embed(model.features(images)), size)
            output = model(images)
        assert torch.equal(output.pred_score, score)
        assert torch.equal(output.anomaly_map, maps)
        assert score.shape == (2,)
        assert maps.shape == (2, 1, *size)

    def test_the_reloaded_one_gives_equal_scores_at_any_batch(self, fitted: Fitted):
        paths = [row.image_path for row in fitted.run.scores("test")]
        own = [prediction.score for prediction in fitted.detector.predict(paths, batch_size=4)]
        assert own == scores(fitted.run, "test")
        for batch_size in (1, 8):
            other = [prediction.score for prediction in fitted.detector.predict(paths, batch_size=batch_size)]
            assert other == pytest.approx(own, rel=1e-5)

    def test_a_checkpoint_holds_plain_data_and_no_second_backbone(self, fitted: Fitted):
        state = torch.load(fitted.run.checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        assert read_checkpoint_record(fitted.run.checkpoint)["model"] == fitted.name
        assert len([key for key in state if key.endswith("layer1.0.conv1.weight")]) == fitted.small.networks
        assert not [key for key in state if "layer4" in key or ".fc." in key]

    def test_images_without_masks_give_image_metrics(self, fitted: Fitted, tmp_path: Path):
        root = make_parts(tmp_path / "unmasked", train=1, masks=False)
        engine = Engine(default_root_dir=tmp_path, enable_progress_bar=False)
        (metrics,) = engine.test(model=fitted.model, datamodule=data(root))
        assert metrics["image_AUROC"] is not None
        assert metrics["pixel_AUROC"] is None

    def test_good_images_alone_of_an_odd_size(self, name: str, tmp_path: Path):
        size = SMALL[name].odd_size
        root = make_parts(tmp_path / "good", train=4, good=2, bad=0)
        _, run = train(name, root, tmp_path, epochs=1, image_size=size)
        assert run.status == "finished"
        assert run.record.metrics["image_AUROC"] is None
        rows = run.scores()
        assert all(math.isfinite(row.score) for row in rows)
        again = Detector.load(run.folder)
        assert again.model.preprocessing.input_size == size
        assert again.predict(rows[0].image_path)[0].score == pytest.approx(rows[0].score, rel=1e-5)


@pytest.mark.parametrize("name", names("once"))
class TestTrainedAgain:
    def test_the_same_experiment_gives_the_same_numbers_to_the_last_digit(self, fitted: Fitted, parts: Path):
        numbers = scores(fitted.run)
        seed_everything(1)  # what ran before must not matter
        torch.rand(100)
        _, second = train(fitted.name, parts, fitted.results)
        assert second.folder == fitted.run.folder
        assert scores(second) == numbers

    def test_another_seed_is_another_run(self, fitted: Fitted, parts: Path):
        _, second = train(fitted.name, parts, fitted.results, seed=7)
        assert second.folder != fitted.run.folder
        if SMALL[fitted.name].draws:
            assert scores(second) != scores(fitted.run)
        else:
            assert scores(second) == pytest.approx(scores(fitted.run), rel=1e-5)

    def test_a_second_fit_sees_only_its_own_data(self, name: str, parts: Path, tmp_path: Path):
        if SMALL[name].goes_on:
            pytest.skip("flows go on training by design, as in anomalib")
        other = make_parts(tmp_path / "other", train=5)
        model, _ = train(name, parts, tmp_path / "first")
        _, second = train(name, other, tmp_path / "first", model=model)
        _, alone = train(name, other, tmp_path / "alone")
        assert scores(second) == scores(alone)

    def test_the_checkpoint_alone_gives_equal_scores_in_another_process(self, fitted: Fitted, tmp_path: Path):
        alone = tmp_path / "alone.ckpt"
        alone.write_bytes(fitted.run.checkpoint.read_bytes())
        code = f"""
from defectlab import Detector
paths = {[row.image_path for row in fitted.run.scores("test")]!r}
predictions = Detector.load({str(alone)!r}).predict(paths, batch_size=4)
for prediction in predictions:
    print(repr(prediction.score), prediction.label)
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        got = [line.split() for line in result.stdout.splitlines()]
        expected = [(row.score, row.pred_label) for row in fitted.run.scores("test")]
        assert [(float(score), int(label)) for score, label in got] == expected

    def test_a_plain_torchvision_module_reloads_by_itself(self, name: str, parts: Path, tmp_path: Path):
        torch.manual_seed(0)
        _, run = train(name, parts, tmp_path, backbone=torchvision.models.resnet18(weights=None).eval())
        row = run.scores("test")[0]
        assert Detector.load(run.folder).predict(row.image_path)[0].score == pytest.approx(row.score, rel=1e-5)

    def test_a_backbone_of_unknown_code_is_asked_for(self, name: str, parts: Path, tmp_path: Path):
        torch.manual_seed(0)
        module = UnknownCode()
        model, run = train(name, parts, tmp_path, backbone=module)
        with pytest.raises(InputError, match="backbone="):
            Detector.load(run.folder)
        row = run.scores("test")[0]
        again = Detector.load(run.folder, backbone=module).predict(row.image_path)[0]
        assert again.score == pytest.approx(row.score, rel=1e-5)
        batches = Engine(enable_progress_bar=False).predict(
            model=model, datamodule=data(parts), ckpt_path=run.checkpoint
        )
        assert float(batches[0].pred_score[0]) == row.score

    def test_plain_anomalib_loads_the_checkpoint(self, fitted: Fitted):
        plain_class = getattr(anomalib.models, type(fitted.model).__name__, None)
        if plain_class is None:
            pytest.skip("no model of anomalib's")
        plain = plain_class.load_from_checkpoint(to_anomalib(fitted.run.folder), map_location="cpu").eval()
        images = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            ours, theirs = fitted.model.eval().model(images), plain.model(images)
        assert float(theirs.pred_score.flatten()[0]) == pytest.approx(float(ours.pred_score[0]), rel=2e-4)
        assert torch.allclose(theirs.anomaly_map.flatten(), ours.anomaly_map.flatten(), rtol=1e-3, atol=1e-4)


class UnknownCode(torch.nn.Module):
    """A network of nobody's architecture."""

    def __init__(self) -> None:
        super().__init__()
        self.layer2 = torch.nn.Conv2d(3, 16, 3, stride=8)
        self.layer1 = torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3, padding=1), torch.nn.ReLU())
        self.layer3 = torch.nn.Conv2d(16, 24, 3, stride=2, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer3(self.layer1(self.layer2(images)))


WITH_BACKBONE = [
    name if SMALL[name].once else pytest.param(name, marks=pytest.mark.long) for name in SMALL if MODELS[name].backbone
]


@pytest.mark.parametrize("name", WITH_BACKBONE)
def test_a_transformer_serves_as_backbone(name: str, parts: Path, tmp_path: Path):
    layers = ["blocks.1"] if name == "csflow" else ["blocks.0+blocks.2", "blocks.1"]
    network = load_backbone("vit_tiny_patch16_224", weights="random")
    with pytest.raises(OptionError, match=r"vit_tiny_patch16_224 cannot take images of 72 x 64.* 64 x 64 or 80 x 64"):
        small(name, backbone=network, layers=layers, image_size=(72, 64))
    model, run = train(name, parts, tmp_path, epochs=1, backbone=network, layers=layers, image_size=96)
    assert run.status == "finished"
    assert model.options["layers"] == layers
    state = torch.load(run.checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    last = 1 if name == "csflow" else 2
    assert any(f".blocks.{last}." in key for key in state)
    assert not any(f".blocks.{last + 1}." in key for key in state)
    paths = [row.image_path for row in run.scores("test")]
    assert [found.score for found in Detector.load(run.folder).predict(paths, batch_size=4)] == scores(run, "test")
