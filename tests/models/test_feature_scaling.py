"""Standardisation of features by the good images: against numpy, in training, checkpoints and sweeps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import SMALL, backbone, data, plain_rows, small
from torchvision.transforms.v2 import RandomHorizontalFlip

from defectlab import Detector, Engine
from defectlab.backbones.feature_cache.extraction import Features, extract
from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.models.convert import to_anomalib
from defectlab.models.feature_scaling import MIN_STD, FeatureScaling
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError, OptionError

SCALED = ("cflow", "fastflow", "csflow", "featcae")


def trained(model: Any, root: Path, results: Path, **options: Any) -> Run:
    engine = Engine(max_epochs=1, default_root_dir=results, enable_progress_bar=False)
    engine.train(model=model, datamodule=data(root, **options))
    return Run.open(model.run_folder)


def statistics(model: Any) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if ".scaling." in key}


def in_numpy(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) of each channel of features (N, C, h, w), the least deviation bounded."""
    wide = features.astype(np.float64)
    std = wide.std(axis=(0, 2, 3))
    return wide.mean(axis=(0, 2, 3)), np.maximum(std, MIN_STD * np.sqrt((std**2).mean()))


def test_it_is_numpys_mean_and_deviation_whatever_the_batches():
    random = np.random.default_rng(3)
    features = {
        "blocks.2": random.normal(30, 200, (7, 5, 6, 4)).astype(np.float32),
        "blocks.4": random.gamma(2, 3, (7, 3, 3, 2)).astype(np.float32),
    }
    scaling = FeatureScaling({layer: values.shape[1] for layer, values in features.items()})
    tensors = {layer: torch.from_numpy(values) for layer, values in features.items()}
    scaling.fit({layer: values[start : start + 3] for layer, values in tensors.items()} for start in range(0, 7, 3))
    for layer, found in scaling(tensors).items():
        mean, std = in_numpy(features[layer])
        expected = (features[layer] - mean[:, None, None]) / std[:, None, None]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_channel_that_is_dead_in_good_images_cannot_rule_the_others():
    features = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    features[:, 1] = 0.5
    scaling = FeatureScaling({"layer1": 3})
    scaling.fit([{"layer1": features}])
    _, std = in_numpy(features.numpy())
    np.testing.assert_allclose(scaling.std_0.numpy(), std, rtol=1e-5)
    assert scaling.std_0[1] == pytest.approx(MIN_STD * np.sqrt((std[[0, 2]] ** 2).sum() / 3), rel=1e-3)
    blank = FeatureScaling({"layer1": 3})
    blank.fit([{"layer1": torch.full((2, 3, 4, 4), 7.0)}])
    assert torch.equal(blank({"layer1": torch.full((1, 3, 2, 2), 8.0)})["layer1"], torch.ones(1, 3, 2, 2))


@pytest.mark.parametrize("name", SCALED)
def test_a_training_takes_them_from_its_good_images_and_its_checkpoint_keeps_them(
    name: str, parts: Path, tmp_path: Path
):
    model = small(name, scale_features=True)
    run = trained(model, parts, tmp_path)
    images, _ = plain_rows(model, parts)
    features = model.model.features(images)
    for number, layer in enumerate(model.model.scaling.layers):
        mean, std = in_numpy(features[layer].numpy())
        np.testing.assert_allclose(statistics(model)[f"model.scaling.mean_{number}"], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(statistics(model)[f"model.scaling.std_{number}"], std, rtol=1e-4)
    assert run.record.experiment.model["scale_features"] is True
    detector = Detector.load(run.folder)
    assert all(torch.equal(value, statistics(model)[key]) for key, value in statistics(detector.model).items())
    rows = run.scores("test")
    found = [prediction.score for prediction in detector.predict([row.image_path for row in rows], batch_size=4)]
    assert found == [row.score for row in rows]


@pytest.mark.parametrize("name", SCALED)
def test_without_it_records_and_checkpoints_are_those_of_before(name: str):
    model = small(name)
    assert "scale_features" not in model.options
    assert "scale_features" not in model.hparams
    assert not statistics(model)
    plain, scaled = small(name, scale_features=False), small(name, scale_features=True)
    assert plain.options == model.options
    assert scaled.options == {**model.options, "scale_features": True}
    assert set(scaled.state_dict()) - set(model.state_dict()) == set(statistics(scaled))
    with pytest.raises(OptionError, match="scale_features"):
        small(name, scale_features="rms")


def test_a_second_fit_takes_them_anew(parts: Path, tmp_path: Path):
    brighter = make_parts(tmp_path / "few", train=3)
    again, fresh = small("cflow", scale_features=True), small("cflow", scale_features=True)
    trained(again, parts, tmp_path)
    before = {key: value.clone() for key, value in statistics(again).items()}
    trained(again, brighter, tmp_path)
    trained(fresh, brighter, tmp_path)
    assert all(torch.equal(value, statistics(fresh)[key]) for key, value in statistics(again).items())
    assert not any(torch.equal(value, before[key]) for key, value in statistics(again).items())


def test_augmentations_batches_and_order_leave_them(parts: Path, tmp_path: Path):
    plain, other = small("fastflow", scale_features=True), small("fastflow", scale_features=True)
    trained(plain, parts, tmp_path)
    trained(other, parts, tmp_path, train_augmentations=RandomHorizontalFlip(1.0), train_batch_size=2)
    assert all(torch.equal(value, statistics(plain)[key]) for key, value in statistics(other).items())


@pytest.mark.parametrize("name", ["cflow", "featcae"])
def test_a_sweeps_cached_features_give_the_same_numbers(name: str, parts: Path, tmp_path: Path):
    alone = small(name, scale_features=True)
    run = trained(alone, parts, tmp_path / "alone")
    model, images = small(name, scale_features=True), data(parts)
    layers = SMALL[name].options["layers"]
    arrays = extract(images, backbone(), model.preprocessing, layers, FeatureStore(tmp_path / "cache"))
    model.use_features(Features(images.manifest, arrays))
    again = trained(model, parts, tmp_path / "sweep")
    assert again.record.run_id == run.record.run_id
    assert all(torch.allclose(value, statistics(alone)[key]) for key, value in statistics(model).items())
    assert [row.score for row in again.scores()] == pytest.approx([row.score for row in run.scores()], rel=1e-4)


def test_a_model_that_scores_tiles_takes_those_of_its_tiles(tmp_path: Path):
    root = make_parts(tmp_path / "large", train=2, good=1, bad=1, size=96)
    model = small("fastflow", scale_features=True)
    trained(model, root, tmp_path, tiling={"image_size": [96, 96], "overlap": 0.5}, train_batch_size=1)
    grid = model.preprocessing.grid
    assert grid is not None
    images, _ = plain_rows(model, root)
    features = model.model.features(grid.cut(images))
    for number, layer in enumerate(model.model.scaling.layers):
        mean, _ = in_numpy(features[layer].numpy())
        np.testing.assert_allclose(statistics(model)[f"model.scaling.mean_{number}"], mean, rtol=1e-4, atol=1e-5)


def test_plain_anomalib_gets_no_checkpoint_that_it_would_score_otherwise(parts: Path, tmp_path: Path):
    run = trained(small("fastflow", scale_features=True), parts, tmp_path)
    with pytest.raises(InputError, match="scale_features"):
        to_anomalib(run.folder)
