"""FeatCAE: the autoencoder and its score against plain ones, features computed once, the rule of its threshold."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import backbone, data, small
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import RandomHorizontalFlip

import defectlab
from defectlab import Detector, Engine, Experiment, FeatCae, load_backbone, predict_to_folder, write_report
from defectlab.backbones.feature_cache.extraction import Features, extract
from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.cli import main
from defectlab.inference.figures import _relative, relative_figure
from defectlab.models import embedding_store
from defectlab.models.featcae import FeatureAutoencoder
from defectlab.results.run.run import Run, find_runs
from defectlab.utils.seeds import generator
from defectlab.visualization.run_panel import map_scale
from defectlab_runtime.errors import InputError, OptionError
from defectlab_runtime.images import read_image
from defectlab_runtime.overlays import contour, overlay

CHANNELS = {"layer2": 512, "layer3": 1024, "layer4": 2048}


def fitted(root: Path, results: Path | None = None, epochs: int = 2, **options) -> tuple[FeatCae, Run]:
    model = small("featcae", **options)
    engine = Engine(max_epochs=epochs, enable_progress_bar=False, default_root_dir=results)
    engine.train(model=model, datamodule=data(root))
    return model, Run.open(model.run_folder)


@pytest.fixture(scope="module")
def run(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fitted(parts, tmp_path_factory.mktemp("featcae"))[1]


def plain_autoencoder(channels: int, latent: int) -> nn.Sequential:
    """The layers as they are described, one by one."""
    middle, double = (channels + 2 * latent) // 2, 2 * latent
    return nn.Sequential(
        nn.Conv2d(channels, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(),
        nn.Conv2d(middle, double, 1, bias=False), nn.BatchNorm2d(double), nn.ReLU(),
        nn.Conv2d(double, latent, 1),
        nn.Conv2d(latent, double, 1, bias=False), nn.BatchNorm2d(double), nn.ReLU(),
        nn.Conv2d(double, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(),
        nn.Conv2d(middle, channels, 1),
    )  # fmt: skip


def test_the_autoencoder_is_the_described_one():
    ours, plain = FeatureAutoencoder(24, 5, batch_norm=True), plain_autoencoder(24, 5)
    assert [tuple(weight.shape) for weight in ours.parameters()] == [tuple(w.shape) for w in plain.parameters()]
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    features = torch.rand(2, 24, 6, 6)
    assert torch.equal(ours(features), plain(features))
    bare = FeatureAutoencoder(24, 5, batch_norm=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in bare.modules())


SEVEN = [chosen for size in (1, 2, 3) for chosen in itertools.combinations(CHANNELS, size)]


@pytest.mark.parametrize("layers", SEVEN, ids="-".join)
def test_all_seven_layer_sets_of_resnet50_build_and_run(layers: tuple[str, ...], resnet50):
    model = FeatCae(backbone=resnet50, layers=layers, image_size=96, border=0, top_pixels=3, latent_dim=4)
    channels = sum(CHANNELS[layer] for layer in layers)
    assert model.model.autoencoder.encoder[0].in_channels == channels
    with torch.no_grad():
        embedding = model.eval().model.embed(model.model.features(torch.rand(1, 3, 96, 96)))
        scores, maps = model.model.score(embedding, (96, 96))
    grid = {"layer2": 12, "layer3": 6, "layer4": 3}[layers[0]]
    assert embedding.shape == (1, channels, grid, grid)
    assert scores.shape == (1,)
    assert maps.shape == (1, 1, 96, 96)


@pytest.fixture(scope="module")
def resnet50():
    return load_backbone("resnet50", weights="random")


def test_features_are_pooled_and_joined_on_the_first_layers_grid():
    model = small("featcae", layers=["layer1", "layer2"]).model
    draw = np.random.default_rng(0)
    fine, coarse = draw.normal(size=(1, 2, 8, 8)), draw.normal(size=(1, 3, 4, 4))
    joined = model.embed({"layer1": torch.tensor(fine), "layer2": torch.tensor(coarse)}).numpy()
    for part, got in ((fine, joined[:, :2]), (coarse, joined[:, 2:])):
        side = part.shape[-1] - 2
        pooled = np.array([[part[..., y : y + 3, x : x + 3].mean((-1, -2)) for x in range(side)] for y in range(side)])
        bins = [(i * side // 8, -(-(i + 1) * side // 8)) for i in range(8)]  # of adaptive pooling
        expected = np.array([[pooled[a:b, c:d].mean((0, 1)) for c, d in bins] for a, b in bins])
        np.testing.assert_allclose(got, expected.transpose(2, 3, 0, 1), rtol=1e-9)


def test_the_score_is_the_mean_of_the_largest_errors_within_the_border():
    model = small("featcae", border=2, top_pixels=5).model.eval()
    embedding = torch.rand(3, 192, 16, 16)
    with torch.no_grad():
        rebuilt = model.autoencoder(embedding).numpy()
        scores, maps = model.score(embedding, (64, 64))
    errors = ((rebuilt - embedding.numpy()) ** 2).mean(axis=1)
    inner = errors[:, 2:-2, 2:-2].reshape(3, -1)
    np.testing.assert_allclose(scores.numpy(), np.sort(inner)[:, -5:].mean(axis=1), rtol=1e-5)
    assert np.all(maps[..., :8, :].numpy() == 0)
    assert np.all(maps[..., 56:].numpy() == 0)
    assert np.all(maps[..., 8:56, 8:56].numpy() > 0)
    assert np.all(maps.numpy().max(axis=(1, 2, 3)) <= inner.max(axis=1) * (1 + 1e-6))


def test_without_a_border_every_cell_up_to_the_edge_counts():
    model = small("featcae", border=0, top_pixels=3).model
    errors = torch.full((1, 1, 16, 16), 0.5)
    errors[..., 0, 0] = errors[..., 0, 15] = errors[..., 15, 0] = 100.0
    scores, maps = model.scored(errors, (64, 64))
    assert scores.item() == 100.0
    assert maps[0, 0, 0, 0] == maps[0, 0, 0, 63] == maps[0, 0, 63, 0] == 100.0
    assert bool((maps > 0).all())


def test_the_reference_size_of_512_pixels_has_a_grid_of_64(resnet50):
    model = FeatCae(backbone=resnet50, layers=("layer2", "layer3"), image_size=512).eval().model
    with torch.no_grad():
        embedding = model.embed(model.features(torch.rand(1, 3, 512, 512)))
        errors = model.errors(embedding)
        scores, maps = model.scored(errors, (512, 512))
    assert embedding.shape == (1, 1536, 64, 64)
    assert maps.shape == (1, 1, 512, 512)
    assert bool((maps[..., :24, :] == 0).all())  # three cells of eight pixels
    assert bool((maps[..., 24:488, 24:488] > 0).all())
    assert scores.item() == pytest.approx(errors[0, 0, 3:-3, 3:-3].flatten().topk(10).values.mean().item())


def test_a_defect_in_the_border_is_seen_by_neither_score_nor_map():
    model = small("featcae", border=2, top_pixels=3).model
    errors = torch.full((1, 1, 16, 16), 0.5)
    marked = errors.clone()
    marked[..., 1, :] = marked[..., :, 15] = 100.0
    for ours, plain in zip(model.scored(marked, (64, 64)), model.scored(errors, (64, 64)), strict=True):
        assert torch.equal(ours, plain)


def test_training_is_plain_adam_on_the_squared_error(parts: Path, tmp_path: Path):
    model, images = small("featcae", batch_norm=False), data(parts)
    Engine(max_epochs=2, enable_progress_bar=False, default_root_dir=tmp_path).fit(model=model, datamodule=images)
    plain = small("featcae", batch_norm=False)
    network = plain.model.autoencoder
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    order = DataLoader(range(8), batch_size=3, shuffle=True, generator=generator(images.seed, "batches"))
    pixels = torch.stack([images.train_data[row].image for row in range(8)])
    with torch.no_grad():
        features = plain.model.embed(plain.model.features(plain.preprocessing.transform()(pixels)))
    means = []
    for _ in range(2):
        losses = []
        for rows in order:
            loss = F.mse_loss(network(features[rows]), features[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += [loss.item()] * len(rows)
        means.append(np.mean(losses))  # of the images of the whole epoch, not of its last batch
    for ours, theirs in zip(model.model.autoencoder.parameters(), network.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)
    assert Run.open(model.run_folder).record.history["train_loss"] == pytest.approx(means, rel=1e-4)


def test_the_backbone_sees_each_image_once(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    model = small("featcae")
    features = model.model.features
    monkeypatch.setattr(model.model, "features", lambda images: (seen.append(len(images)), features(images))[1])
    Engine(max_epochs=3, enable_progress_bar=False, default_root_dir=tmp_path).fit(model=model, datamodule=data(parts))
    assert sum(seen) == 8 + 4  # training and validation images
    assert model._store is None


def test_features_that_need_a_file_give_the_same_numbers(parts: Path, run: Run, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(embedding_store, "MAX_MEMORY_BYTES", 1000)
    _, other = fitted(parts, tmp_path)
    assert [row.score for row in other.scores()] == [row.score for row in run.scores()]
    assert not list(tmp_path.rglob("tmp*"))


def test_augmented_images_are_seen_anew_in_each_epoch(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    model = small("featcae")
    features = model.model.features
    monkeypatch.setattr(model.model, "features", lambda images: (seen.append(len(images)), features(images))[1])
    augmented = data(parts, train_augmentations=RandomHorizontalFlip(1.0))
    Engine(max_epochs=2, enable_progress_bar=False, default_root_dir=tmp_path).fit(model=model, datamodule=augmented)
    assert sum(seen) == 2 * (8 + 4)


def test_cached_features_give_the_numbers_of_a_training_of_its_own(parts: Path, run: Run, tmp_path: Path, monkeypatch):
    model, images = small("featcae"), data(parts)
    arrays = extract(images, backbone(), model.preprocessing, ["layer2", "layer1"], FeatureStore(tmp_path / "cache"))
    model.use_features(Features(images.manifest, arrays))
    monkeypatch.setattr(model.model, "features", lambda _: pytest.fail("the backbone is not needed"))
    engine = Engine(max_epochs=2, enable_progress_bar=False, default_root_dir=tmp_path)
    engine.train(model=model, datamodule=images)
    ours = [row.score for row in Run.open(model.run_folder).scores()]
    assert ours == pytest.approx([row.score for row in run.scores()], rel=1e-4)
    assert Run.open(model.run_folder).record.run_id == run.record.run_id
    with pytest.raises(InputError, match="lack layer1"):
        model.use_features(Features(images.manifest, {"layer2": arrays["layer2"]}))


def test_the_threshold_is_mean_plus_k_deviations_of_good_validation_images(run: Run):
    good = np.array([row.score for row in run.scores("validation") if row.label == 0])
    image, pixel = run.record.thresholds.image, run.record.thresholds.pixel
    assert image.rule == "mean_plus_k_std"
    assert image.value == pytest.approx(good.mean() + 3 * good.std())
    assert pixel.value == image.value
    detector = Detector.load(run.folder)
    assert detector.image_threshold == detector.pixel_threshold == image.value


def test_heat_maps_are_relative_to_the_threshold_everywhere(run: Run, parts: Path, tmp_path: Path):
    detector = Detector.load(run.folder)
    assert detector.heat_range == (0.0, 2 * detector.pixel_threshold)
    assert map_scale(run) == (*detector.heat_range, "map, from 0 to twice the threshold:")
    assert "from 0 to twice the threshold" in write_report([run], tmp_path / "report.html").read_text()
    path = parts / "test/blot/000.png"
    predict_to_folder(run.folder, path, tmp_path, heatmaps=True)
    (found,) = detector.predict(path)
    expected = contour(overlay(read_image(path), found.anomaly_map, *detector.heat_range), found.mask)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "heatmaps/000.png.png")), expected)
    assert relative_figure(detector, found).size[0] > 1000


def test_a_relative_score_never_contradicts_the_verdict():
    assert _relative(1.0000004, True) == "1.0000004"
    assert _relative(1.0, False) == "1.00"
    assert (_relative(1.004, True), _relative(0.996, False), _relative(1.37, True)) == ("1.004", "1.00", "1.37")


def test_the_reference_configuration_trains_and_tests_apart(parts: Path, capsys: pytest.CaptureFixture):
    path = Path(defectlab.__file__).parents[1] / "configs/featcae.yaml"
    reference = Experiment.from_yaml(path)
    assert (reference.backbone.name, reference.model["layers"]) == ("efficientnet_lite0", ["blocks.2", "blocks.4"])
    small_one = ["--data.root", str(parts), "--data.num_workers", "0", "--backbone.name", "resnet18",
                 "--backbone.weights", "random", "--model.layers", "[layer1]", "--model.image_size", "[64, 64]",
                 "--trainer", "{max_epochs: 1, enable_progress_bar: false}"]  # fmt: skip
    assert main(["train", "--config", str(path), *small_one, "--fit-only"]) == 0
    (run,) = find_runs()
    assert run.status == "fitted"
    assert run.record.dataset.protocol.counts["validation"] == {"good": 1, "anomalous": 0}
    assert main(["evaluate", str(run.folder)]) == 2
    assert "add --rescore" in capsys.readouterr().err
    assert main(["evaluate", str(run.folder), "--rescore"]) == 0
    assert Run.open(run.folder).status == "finished"


def test_a_checkpoint_is_tested_on_other_images(run: Run, tmp_path: Path):
    other = make_parts(tmp_path / "other", train=2, good=2, bad=6, size=80)
    assert main(["evaluate", str(run.folder), "--data", str(other)]) == 0
    (tested,) = find_runs()
    assert tested.record.dataset.name == "other"
    assert len(tested.scores("test")) == 4
    assert tested.checkpoint_file() == run.checkpoint


def test_a_second_fit_begins_anew(parts: Path, tmp_path: Path):
    other = make_parts(tmp_path / "other", train=5)
    model = small("featcae")
    engine = Engine(max_epochs=1, enable_progress_bar=False, default_root_dir=tmp_path)
    engine.train(model=model, datamodule=data(parts))
    engine.train(model=model, datamodule=data(other))
    _, alone = fitted(other, tmp_path / "alone", epochs=1)
    assert [row.score for row in Run.open(model.run_folder).scores()] == [row.score for row in alone.scores()]


def test_mean_and_std_are_the_backbones():
    other = load_backbone("resnet18", weights="random", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert small("featcae", backbone=other).preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"border": -1}, "border"),
        ({"border": 8}, "leaves 0 cells"),
        ({"top_pixels": 197}, "leaves 196 cells"),
        ({"layers": ["layer4"]}, "too small for a mean"),
        ({"batch_norm": "yes"}, "true or false"),
        ({"lr": 0}, "lr"),
        ({"threshold_k": -1}, "threshold_k"),
        ({"threshold_k": math.inf}, "finite"),
        ({"latent": 5}, "latent_dim"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        small("featcae", **options)
