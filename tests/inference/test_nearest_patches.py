"""Nearest good patches against an independent search in numpy, over images of several shapes and preprocessings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import data, small
from PIL import Image

from defectlab import Detector, Engine, InputError, nearest_good_patches
from defectlab.inference.figures import patches_figure
from defectlab.models.checkpoint import CHECKPOINT_KEY

STEP = 8  # pixels of the model's input between two patches of layer2


def make_images(root: Path, height: int, width: int) -> Path:
    """Noise of one size, so that every patch is unlike every other."""
    random = np.random.default_rng(1)
    for folder, count in (("train/good", 3), ("test/good", 2), ("test/blot", 2)):
        for number in range(count):
            pixels = random.integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
            if "blot" in folder:
                pixels[height // 2 : height // 2 + 12, width // 4 : width // 4 + 12] = (255, 240, 0)
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{number:03d}.png")
    return root


def fitted(root: Path, **options: Any):
    model = small("patchcore", coreset_sampling_ratio=0.3, **options)
    engine = Engine(max_epochs=1, enable_progress_bar=False)
    engine.fit(model=model, datamodule=data(root))
    return engine.best_model_path


def embedding(detector: Detector, path: Path) -> np.ndarray:
    """(h, w, C) features of one image file."""
    pixels = np.asarray(Image.open(path))
    model = detector.model.model
    with torch.inference_mode():
        return model.embed(model.features(detector.model_input([pixels])))[0].permute(1, 2, 0).double().numpy()


GEOMETRIES: list[tuple[tuple[int, int], dict[str, Any]]] = [
    ((64, 64), {"image_size": 64}),
    ((96, 160), {"image_size": [64, 96]}),
    ((96, 128), {"image_size": 96, "center_crop": 64}),
    ((64, 128), {"image_size": 64, "keep_aspect": True}),
]


def expected_box(row: int, column: int, shape: tuple[int, int], options: dict[str, Any]) -> tuple[int, ...]:
    """The box of a patch by hand, for these four."""
    left, top, right, bottom = column * STEP, row * STEP, (column + 1) * STEP, (row + 1) * STEP
    if shape == (96, 160):  # stretched: 1.5 times as high, 160 / 96 times as wide
        return int(left * 160 // 96), int(top * 1.5), -int(-right * 160 // 96), int(bottom * 1.5)
    if shape == (96, 128):  # 16 pixels cut away, then 128 / 96 times as wide
        return (left + 16) * 4 // 3, top + 16, -(-(right + 16) * 4 // 3), bottom + 16
    if shape == (64, 128):  # half as large, between 16 rows of padding
        return left * 2, max(0, (top - 16) * 2), right * 2, min(64, (bottom - 16) * 2)
    return left, top, right, bottom


@pytest.mark.parametrize(("shape", "options"), GEOMETRIES, ids=lambda value: str(value))
def test_against_a_search_by_hand(tmp_path: Path, shape: tuple[int, int], options: dict[str, Any]):
    root = make_images(tmp_path / "noise", *shape)
    checkpoint = fitted(root, **options)
    detector = Detector.load(checkpoint, device="cpu")
    image = root / "test/blot/000.png"
    found = nearest_good_patches(detector, image, count=4)

    train = [embedding(detector, path) for path in sorted((root / "train/good").glob("*.png"))]
    height, width, channels = train[0].shape
    rows = np.concatenate([grid.reshape(-1, channels) for grid in train])  # (h, w, C) -> (N*h*w, C)
    bank = detector.model.model.memory_bank.double().numpy()
    # which training patch a bank row is, by its numbers alone
    origin = np.array([np.abs(rows - kept).max(1).argmin() for kept in bank])
    assert np.abs(rows[origin] - bank).max() < 1e-4

    query = embedding(detector, image).reshape(-1, channels)
    distances = np.sqrt(((query[:, None] - bank[None]) ** 2).sum(-1))
    boxes = [expected_box(*divmod(place, width), shape, options) for place in range(len(query))]
    visible = np.array([right > left and bottom > top for left, top, right, bottom in boxes])
    worst = int(np.where(visible, distances.min(1), -1).argmax())
    assert found.box == boxes[worst]
    order = np.argsort(distances[worst])[:4]
    assert [patch.distance for patch in found.patches] == pytest.approx(distances[worst][order].tolist(), rel=1e-3)
    for patch, row in zip(found.patches, order, strict=True):
        picture, place = divmod(int(origin[row]), height * width)
        assert patch.image_path == root / f"train/good/{picture:03d}.png"
        assert patch.box == expected_box(*divmod(place, width), shape, options)


def test_a_patch_of_a_rotated_copy_is_shown_where_it_came_from(tmp_path: Path):
    """Quarter turns of squares map cells onto cells: the box's own pixels, turned, are the patch's."""
    root = make_images(tmp_path / "noise", 64, 64)
    detector = Detector.load(fitted(root, rotations=4), device="cpu")
    found = nearest_good_patches(detector, root / "test/blot/000.png", count=40)
    bank = detector.model.model.memory_bank.double().numpy()
    origin = detector.model.bank_origin
    query = embedding(detector, root / "test/blot/000.png")
    worst = query[found.box[1] // STEP, found.box[0] // STEP]
    order = np.argsort(((worst - bank) ** 2).sum(-1))[:40]
    assert {patch.degrees for patch in found.patches} == {0.0, 90.0, 180.0, 270.0}
    for patch, row in zip(found.patches, order, strict=True):
        turns = round(patch.degrees / 90)
        assert float(origin.degrees[row]) == patch.degrees
        left, top, right, bottom = patch.box
        assert (right - left, bottom - top) == (STEP, STEP)
        marked = np.zeros((64, 64))
        marked[top:bottom, left:right] = 1
        row_of, column_of = divmod(int(origin.patches[row]), 64 // STEP)
        turned = np.rot90(marked, turns)
        assert turned[row_of * STEP : (row_of + 1) * STEP, column_of * STEP : (column_of + 1) * STEP].all()
    assert patches_figure(root / "test/blot/000.png", replace(found, patches=found.patches[:3])).size[0] > 0


def test_a_test_changes_nothing_and_a_copy_says_what_it_lacks(tmp_path: Path):
    root = make_images(tmp_path / "noise", 64, 64)
    checkpoint = Path(fitted(root))
    image = root / "test/blot/000.png"
    first = nearest_good_patches(Detector.load(checkpoint), image)
    Engine(enable_progress_bar=False).test(datamodule=data(root), ckpt_path=checkpoint)
    run = checkpoint.parents[2]
    assert nearest_good_patches(Detector.load(run), image) == first
    assert len(first.patches) == 5
    copy = tmp_path / "elsewhere/model.ckpt"
    copy.parent.mkdir()
    copy.write_bytes(checkpoint.read_bytes())
    with pytest.raises(InputError, match="no run beside this checkpoint"):
        nearest_good_patches(Detector.load(copy), image)


def test_a_checkpoint_of_an_earlier_version_says_so(tmp_path: Path):
    root = make_images(tmp_path / "noise", 64, 64)
    checkpoint = Path(fitted(root))
    content = torch.load(checkpoint, weights_only=False)
    del content[CHECKPOINT_KEY]["bank"]
    torch.save(content, checkpoint)
    detector = Detector.load(checkpoint)
    assert detector.predict(root / "test/blot/000.png")[0].score > 0
    with pytest.raises(InputError, match="earlier version"):
        nearest_good_patches(detector, root / "test/blot/000.png")


def test_what_it_cannot_explain_is_refused(tmp_path: Path, parts: Path):
    model = small("padim")
    engine = Engine(max_epochs=1, enable_progress_bar=False)
    engine.fit(model=model, datamodule=data(parts))
    with pytest.raises(InputError, match=r"PatchCore's.*this is Padim"):
        nearest_good_patches(Detector(model, None, None), parts / "test/blot/000.png")
    detector = Detector.load(fitted(parts))
    with pytest.raises(InputError, match="one image, got 4"):
        nearest_good_patches(detector, parts / "test/blot")
    with pytest.raises(InputError, match="count"):
        nearest_good_patches(detector, parts / "test/blot/000.png", count=0)
