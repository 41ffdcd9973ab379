"""What every model on a backbone has: its weights, mean and std, image settings and precision."""

from pathlib import Path

import pytest
import torch
import torchvision
from helpers.models import data, fitted, small

from defectlab import Detector, Engine, load_backbone
from defectlab.models.loading import restore
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab_runtime.errors import OptionError, WeightsError


def test_a_layer_without_weights_is_refused(tmp_path: Path):
    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save({key: value for key, value in state.items() if not key.startswith(("layer4", "fc"))}, tmp_path / "a.pth")
    without = load_backbone("resnet18", weights=tmp_path / "a.pth")
    assert small("padim", backbone=without)
    with pytest.raises(WeightsError, match="layer4"):
        small("padim", backbone=without, layers=["layer4"], n_features=3)


def test_mean_and_std_are_the_backbones(tmp_path: Path):
    other = load_backbone("resnet18", weights="random", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert small("padim", backbone=other).preprocessing.mean == (0.5, 0.5, 0.5)


def test_images_are_of_the_nearest_size_that_the_backbone_takes(caplog: pytest.LogCaptureFixture):
    network = load_backbone("vit_small_patch14_dinov2", weights="random")
    with caplog.at_level("INFO"):
        model = small("patchcore", backbone=network, layers=["blocks.0"], image_size=None)
    assert model.preprocessing.size == (252, 252)
    assert "the size nearest to (256, 256) that vit_small_patch14_dinov2 takes" in caplog.text
    with pytest.raises(OptionError, match="image_size 252 x 252 or 266 x 266"):
        small("patchcore", backbone=network, layers=["blocks.0"], image_size=256)
    cropped = small("patchcore", backbone=network, layers=["blocks.0"], image_size=256, center_crop=224)
    assert cropped.preprocessing.input_size == (224, 224)


def test_every_image_setting_survives_the_checkpoint(parts: Path):
    model, run = fitted("padim", parts, image_size=(72, 64), center_crop=(64, 56), keep_aspect=True)
    assert restore(run.checkpoint).preprocessing == model.preprocessing
    row = run.scores("test")[0]
    assert Detector.load(run.folder).predict(row.image_path)[0].score == pytest.approx(row.score, rel=1e-5)


def test_bicubic_resizing_is_on_record_and_another_run_where_it_is_asked_for_and_nowhere_else(parts: Path):
    engine, images = Engine(enable_progress_bar=False), data(parts)
    plain = small("patchcore", image_size=48)
    usual = small("patchcore", image_size=48, interpolation="bilinear")
    assert plain.options == usual.options
    assert engine.run_id(plain, images) == engine.run_id(usual, images)
    model, run = fitted("patchcore", parts, image_size=48, interpolation="bicubic")
    assert engine.run_id(model, images) != engine.run_id(plain, images)
    assert run.record.preprocessing.interpolation == run.record.experiment.model["interpolation"] == "bicubic"
    row = run.scores("test")[0]
    assert Detector.load(run.folder).predict(row.image_path)[0].score == pytest.approx(row.score, rel=1e-5)
    for again in (restore(run.checkpoint), type(model).load_from_checkpoint(run.checkpoint)):
        assert (again.options, again.preprocessing) == (model.options, model.preprocessing)
    assert model.preprocessing.hash != plain.preprocessing.hash  # a part of the keys of cached features


def test_a_backbone_of_lower_precision_is_on_record_and_reloads(parts: Path):
    lower = load_backbone("resnet18", "random", precision="bfloat16")
    engine, images = Engine(enable_progress_bar=False), data(parts)
    model = small("patchcore", backbone=lower)
    assert engine.run_id(model, images) != engine.run_id(small("patchcore"), images)
    engine.train(model=model, datamodule=images)
    run = Run.open(model.run_folder)
    assert run.record.experiment.backbone["precision"] == "bfloat16"
    rows = run.scores("test")
    found = Detector.load(run.folder).predict([str(paths.resolve(row.image_path)) for row in rows])
    assert [one.score for one in found] == pytest.approx([row.score for row in rows], rel=1e-5)


def test_random_weights_are_named_in_the_record():
    assert small("padim").backbone_record["source"] == "random(seed=42)"
