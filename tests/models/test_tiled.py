"""Models on tiles: what is joined of them, and whole runs on large images."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch
from helpers.datasets import make_parts
from helpers.models import data, small
from PIL import Image

from defectlab import Detector, Engine
from defectlab.kernels.tiles import TileGrid
from defectlab.models.tiled import TiledFeatures, TiledScores, replace_by_tiles
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError
from defectlab_runtime.tiling import Tiling


def test_features_of_tiles_are_those_of_the_whole_where_cells_see_no_neighbours():
    grid = TileGrid.of((96, 128), (64, 64), 0.25)
    pool = torch.nn.functional.avg_pool2d

    def features(images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"fine": pool(images, 4), "coarse": pool(images, 16)}

    images = torch.rand(3, 3, 96, 128)
    found, plain = TiledFeatures(features, grid)(images), features(images)
    for layer, values in plain.items():
        assert torch.allclose(found[layer], values, atol=1e-6)
    with pytest.raises(ValueError, match="do not meet"):
        TileGrid.of((98, 98), (64, 64), 0.25).scaled((16, 16))


def test_scores_are_the_highest_of_the_tiles_and_maps_are_in_place():
    grid = TileGrid.of((96, 96), (64, 64), 0.25)

    def forward(tiles: torch.Tensor) -> InferenceBatch:
        return InferenceBatch(pred_score=tiles.mean((1, 2, 3))[:, None], anomaly_map=tiles[:, :1] * 2)

    images = torch.rand(2, 3, 96, 96)
    found = TiledScores(forward, grid)(images)
    means = [[image[:, t : t + 64, x : x + 64].mean() for t, x in grid.places] for image in images]
    assert torch.allclose(found.pred_score, torch.tensor(means).amax(1))
    assert torch.allclose(found.anomaly_map, images[:, :1] * 2, atol=1e-6)
    assert TiledScores(forward, grid)(images[..., :64, :64]).anomaly_map.shape == (2, 1, 64, 64)


def test_a_training_batch_becomes_tiles():
    grid = TileGrid.of((96, 96), (64, 64), 0.25)
    images = torch.rand(2, 3, 96, 96)

    def batch() -> SimpleNamespace:
        return SimpleNamespace(image=images, image_path=["a", "b"], gt_label=torch.tensor([0, 1]), gt_mask=images[:, 0])

    every, some = batch(), batch()
    replace_by_tiles(every, grid, None)
    assert torch.equal(every.image, grid.cut(images))
    assert every.image_path == ["a"] * 4 + ["b"] * 4
    torch.manual_seed(0)
    replace_by_tiles(some, grid, 2)
    assert some.image.shape == (4, 3, 64, 64)
    assert some.gt_label.tolist() == [0, 0, 1, 1]
    mine = every.image.unflatten(0, (2, 4))
    assert all(any(torch.equal(tile, one) for one in mine[at // 2]) for at, tile in enumerate(some.image))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_parts(tmp_path_factory.mktemp("large") / "parts", size=128)


BY_FEATURES = ("padim", "patchcore", "subspace", "featcae")
OTHERS = [
    pytest.param(n, marks=pytest.mark.long) for n in ("patchcore", "cflow", "stfpm", "fastflow", "csflow", "draem")
]


@pytest.mark.row("3.14")
def test_efficient_ad_measures_and_trains_on_tiles_as_on_images(monkeypatch: pytest.MonkeyPatch):
    model = small("efficient_ad")
    model.set_input_region(None, Tiling((320, 256), overlap=0.25))
    grid, network = model.preprocessing.grid, model.model
    assert grid is not None
    images = torch.rand(1, 3, 320, 256, generator=torch.Generator().manual_seed(0))
    measured = list(model._inputs([SimpleNamespace(image=images[0])]))
    assert all(torch.equal(tile, cut) for tile, cut in zip(measured, grid.cut(images).split(1), strict=True))
    network.mean_std["std"].fill_(1.0)
    for name, value in network.quantiles.items():
        value.fill_(0.5 if name.startswith("qb") else 0.1)
    with torch.no_grad():
        tiles = [type(network).forward(network.eval(), tile) for tile in measured]
        whole = network(images)
    assert torch.allclose(whole.anomaly_map, grid.join(torch.cat([tile.anomaly_map for tile in tiles])))
    assert float(whole.pred_score) == pytest.approx(max(float(tile.pred_score) for tile in tiles))
    model._files, model.on_train_epoch_start = [Path()], lambda: None
    monkeypatch.setattr(model, "_general_image", lambda _: images[..., :256, :256])
    monkeypatch.setattr(model, "log_losses", lambda *_, **losses: None)
    losses = []
    for batch in (grid.cut(images), *grid.cut(images).split(1)):
        torch.manual_seed(0)
        network.choose_random_aug_image = lambda image: image
        losses.append(float(model.training_step(SimpleNamespace(image=batch), 0)["loss"].detach()))
    assert losses[0] == pytest.approx(np.mean(losses[1:]), rel=1e-5)


@pytest.mark.long
def test_efficient_ad_on_tiles(tmp_path: Path):
    large = make_parts(tmp_path / "large", size=320, train=3, good=2, bad=2)
    model = small("efficient_ad")
    tiling = {"image_size": [320, 320], "random_tiles": 1}
    Engine(max_epochs=2).train(model=model, datamodule=data(large, tiling=tiling, train_batch_size=1))
    run = Run.open(model.run_folder)
    assert run.maps("test").shape[1:] == (320, 320)
    rows = run.scores("test")
    found = Detector.load(run.folder, device="cpu").predict([row.image_path for row in rows])
    assert [one.score for one in found] == pytest.approx([row.score for row in rows], rel=1e-4)


@pytest.mark.row("3.14")
@pytest.mark.parametrize("name", ["padim", "subspace", "featcae", "small_conv_vae", *OTHERS])
def test_a_run_on_tiles(large: Path, name: str, tmp_path: Path):
    model = small(name)
    engine = Engine(default_root_dir=tmp_path / "results", max_epochs=1, pixel_size="original")
    tiling = {"image_size": [96, 96], "overlap": 0.4}
    tiling |= {"random_tiles": 2} if name == "small_conv_vae" else {}
    engine.train(model=model, datamodule=data(large, tiling=tiling))
    run = Run.open(model.run_folder)
    assert run.maps("test").shape[1:] == (96, 96)
    assert run.record.tiling.rows == [0, 32]
    assert ("highest of its tiles" in run.record.tiling.image_score) == (name not in BY_FEATURES)
    assert run.record.experiment.data["tiling"]["image_size"] == [96, 96]
    assert np.asarray(Image.open(run.folder / "tiles.png")).shape == (96, 96, 3)
    assert run.record.metrics["pixel_AUROC"] is not None

    moved = run.checkpoint_file().rename(tmp_path / "alone.ckpt")
    detector = Detector.load(moved, device="cpu")
    rows = {Path(row.image_path).name: row for row in run.scores("test") if row.defect == "blot"}
    images = [large / "test/blot" / file for file in rows]
    for found, row in zip(detector.predict(images), rows.values(), strict=True):
        assert found.score == pytest.approx(row.score, rel=1e-5)
        assert found.anomaly_map.shape == (128, 128)
    if name == "padim":
        again = Engine(default_root_dir=tmp_path / "results", pixel_size="original")
        tested = again.test(model=small(name), datamodule=data(large), ckpt_path=moved)  # the checkpoint brings tiles
        assert tested[0] == pytest.approx(run.record.metrics, rel=1e-5)
        with pytest.raises(InputError, match="tiling differs"):
            again.test(datamodule=data(large, tiling={"image_size": 128}), ckpt_path=moved)
