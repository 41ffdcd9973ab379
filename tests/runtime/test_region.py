"""A part of every image: what is cut out, what is checked, and where maps come back to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts, mvtec
from helpers.models import data, small
from PIL import Image
from torchvision.tv_tensors import Mask

from defectlab import Detector, Engine
from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import build_manifest
from defectlab.data.transforms.preprocessing import Preprocessing, RegionCrop
from defectlab.inference.prediction_files import predict_to_folder
from defectlab.results.run.run import Run
from defectlab.visualization.run_panel import ShownImages
from defectlab_runtime.errors import DataError, InputError, OptionError
from defectlab_runtime.images import read_image
from defectlab_runtime.region import Region

BOX = (6, 10, 58, 60)  # left, top, right, bottom


def half(size=(64, 64)) -> np.ndarray:
    mask = np.ones(size, dtype=np.bool_)
    mask[:, : size[1] // 4] = False
    return mask


def test_a_valid_area_with_noise_is_warned_of(tmp_path, caplog):
    root = make_parts(tmp_path, train=4, good=2, bad=2, size=40)
    Image.fromarray(half((40, 40)) * np.uint8(255)).save(root / "valid.jpg", quality=30)
    build_manifest(root, valid_area_mask="valid.jpg")
    assert "grey levels, and every pixel that is not 0 counts" in caplog.text


def test_there_and_back_as_plain_data():
    region = Region.of(BOX, half())
    again = Region.from_dict(region.to_dict())
    assert again == region
    assert (again.mask == half()).all()
    assert Region.of(None, None) is None
    assert Region.of(BOX, ~half()) != region
    settings = Preprocessing(region=region)
    assert Preprocessing.from_dict(settings.to_dict()) == settings
    assert settings.hash != Preprocessing(region=Region.of(BOX, None)).hash != Preprocessing().hash
    assert "area" not in Preprocessing().to_dict()
    assert Preprocessing().hash == "1a227bc2f7da7315"


@pytest.mark.row("3.9")
def test_the_cut_is_that_of_numpy():
    pixels = np.random.default_rng(0).random((3, 64, 64), dtype=np.float32)
    marked = np.random.default_rng(1).random((64, 64)) > 0.5
    region = Region.of(BOX, half())
    left, top, right, bottom = BOX
    image, mask = RegionCrop(region)(torch.from_numpy(pixels), Mask(torch.from_numpy(marked.astype(np.uint8))))
    assert np.array_equal(image.numpy(), (pixels * half())[:, top:bottom, left:right])
    assert np.array_equal(mask.numpy() > 0, (marked & half())[top:bottom, left:right])
    assert isinstance(mask, Mask)
    assert np.array_equal(region.cut(pixels.transpose(1, 2, 0)), image.numpy().transpose(1, 2, 0))
    with pytest.raises(DataError, match="32 x 64, and the valid area is of images of 64 x 64"):
        RegionCrop(region)(torch.zeros(3, 64, 32))


@pytest.mark.row("3.9")
@pytest.mark.parametrize("options", [{}, {"keep_aspect": True}, {"crop": (24, 24)}])
def test_a_map_comes_back_to_its_place(options):
    region = Region.of(BOX, half())
    settings = Preprocessing(size=(32, 32), region=region, **options)
    spot = torch.zeros(3, 64, 64)
    spot[:, 34:38, 40:44] = 1.0
    seen = settings.transform()(settings.resize()(spot))[0]
    seen = (seen - seen.min())[None]
    found = settings.to_image(seen, (64, 64))[0]
    row, column = divmod(int(torch.nan_to_num(found, nan=-1.0).argmax()), 64)
    assert abs(row - 35.5) <= 1.5
    assert abs(column - 41.5) <= 1.5
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[BOX[1] : BOX[3], BOX[0] : BOX[2]] = False
    assert torch.isnan(found[outside | ~torch.from_numpy(half())]).all()
    if not options:
        assert torch.isnan(found).sum() == (outside | ~torch.from_numpy(half())).sum()
        assert settings.box_to_image((0, 0, 32, 32), (64, 64)) == BOX


def save_mask(path: Path, mask: np.ndarray) -> str:
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return str(path)


@pytest.mark.row("3.8")
def test_what_does_not_fit_is_refused(tmp_path):
    root = mvtec(tmp_path / "parts")  # 8 x 6
    for options, words in (
        ({"crop_area": [0, 0, 9, 6]}, "8 x 6, and crop_area ends at 9, 6"),
        ({"valid_area_mask": save_mask(tmp_path / "big.png", np.ones((8, 8)))}, "valid area is of images of 8 x 8"),
        ({"valid_area_mask": "none.png"}, "no such file"),
        ({"valid_area_mask": save_mask(tmp_path / "no.png", np.zeros((6, 8)))}, "no pixel counts"),
    ):
        with pytest.raises(DataError, match=words):
            build_manifest(root, **options)
    for box in ([0, 0, 4], [4, 0, 4, 6], [0, 0, 4, 6.0], "0,0,4,6", [-1, 0, 4, 6]):
        with pytest.raises(OptionError, match="crop_area"):
            build_manifest(root, crop_area=box)
    save_mask(root / "valid.png", np.ones((6, 8)))
    assert check(root, valid_area_mask="valid.png", crop_area=[1, 1, 5, 5], near=False).ok


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Parts, and the same parts cut to a region by hand."""
    root = make_parts(tmp_path_factory.mktemp("region") / "parts", bad=6)
    Image.fromarray(half().astype(np.uint8) * 255).save(root / "valid.png")
    by_hand = root.parent / "by_hand"
    for file in sorted(root.rglob("*/*/*.png")):
        pixels = np.asarray(Image.open(file))
        pixels = pixels * (half() if pixels.ndim == 2 else half()[..., None]).astype(np.uint8)
        target = by_hand / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]]).save(target)
    return root, by_hand


@pytest.mark.row("3.8")
def test_a_run_equals_one_on_images_cut_by_hand(framed: tuple[Path, Path], tmp_path: Path):
    root, by_hand = framed
    runs = []
    for folder, options in ((root, {"valid_area_mask": "valid.png", "crop_area": BOX}), (by_hand, {})):
        model = small("padim")
        Engine(default_root_dir=tmp_path / "results", pixel_size="original").train(
            model=model, datamodule=data(folder, seed=3, **options)
        )
        runs.append(Run.open(model.run_folder))
    ours, plain = runs
    assert [row.score for row in ours.scores()] == [row.score for row in plain.scores()]
    assert ours.record.metrics == plain.record.metrics
    assert ours.record.experiment.data["crop_area"] == list(BOX)

    image = next(iter((root / "test/blot").iterdir()))
    ours_found, plain_found = (
        Detector.load(run.folder, device="cpu").predict(folder / image.relative_to(root))[0]
        for run, folder in zip(runs, framed, strict=True)
    )
    assert ours_found.score == plain_found.score
    left, top, right, bottom = BOX
    inside = ours_found.anomaly_map[top:bottom, left:right]
    valid = half()[top:bottom, left:right]
    assert ours_found.anomaly_map.shape == (64, 64)
    assert np.array_equal(inside[valid], plain_found.anomaly_map[valid])
    assert np.isnan(inside[~valid]).all()
    assert np.isfinite(ours_found.anomaly_map).sum() == valid.sum()
    assert not ours_found.mask[:, :left].any()

    tiles = ShownImages.of(ours).tiles(0, truth=True)
    assert tiles[0].shape == read_image(image).shape

    checkpoint = ours.checkpoint_file()
    moved = checkpoint.rename(tmp_path / "alone.ckpt")  # the settings are in the checkpoint itself
    assert Detector.load(moved, device="cpu").predict(image)[0].score == ours_found.score
    small_one = Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8))
    small_one.save(tmp_path / "small.png")
    with pytest.raises(DataError, match=r"small\.png: 40 x 40"):
        predict_to_folder(moved, tmp_path / "small.png", tmp_path / "out")
    moved.rename(checkpoint)

    again = Engine(default_root_dir=tmp_path / "results", pixel_size="original")
    tested = again.test(model=small("padim"), datamodule=data(root, seed=3), ckpt_path=checkpoint)  # brings its region
    assert tested[0] == ours.record.metrics
    with pytest.raises(InputError, match="the checkpoint brings its own"):
        again.test(datamodule=data(root, seed=3, crop_area=[0, 0, 32, 32]), ckpt_path=checkpoint)
    with pytest.raises(DataError, match="does not fit"):
        again.test(datamodule=data(by_hand, seed=3), ckpt_path=checkpoint)
