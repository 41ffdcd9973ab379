"""Near-duplicates: copies of one photograph are found, look-alike parts of an aligned line are not."""

import io
import shutil
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.ndimage import affine_transform, gaussian_filter

from defectlab.data.image_facts import probe
from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab.data.manifest.near_duplicates import count_leaks, near_duplicates, sets_of_copies
from defectlab.data.manifest.registration import Picture, Placement, register_all
from defectlab_runtime.errors import DataError


def register(moving: Picture, fixed: Picture, sizes: tuple[int, ...]) -> Placement | None:
    return register_all(moving[None], fixed[None], sizes)[0]


def line(root: Path, *, train: int = 30, test: int = 12, size: int = 160) -> Path:
    """An aligned line: one plate with holes under one light; parts differ by a little dirt, light and camera noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    plate = 120 + 50 * ((y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.16) - 60 * ((y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.02)
    plate = gaussian_filter(plate + 25.0 * (np.sin(40 * x) > 0.6), 1)
    for folder, count in (("train/good", train), ("test/good", test // 2), ("test/crack", test - test // 2)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            dirt = 40 * gaussian_filter(random.normal(0, 1, plate.shape), 2)
            light = random.normal(1, 0.05) + random.normal(0, 0.05) * x
            pixels = plate * light + dirt + random.normal(0, 4, plate.shape)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / folder / f"{number:03d}.png")
    return root


def saved_again(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality)
    return Image.open(file)


def cropped(image: Image.Image, left: float, rest: float) -> Image.Image:
    width, height = image.size
    return image.crop((int(left * width), int(rest * height), width - int(rest * width), height - int(rest * height)))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again": lambda image: saved_again(image, 90),
    "compressed": lambda image: saved_again(image, 50),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "cropped": lambda image: cropped(image, 0.02, 0.02),
    "cropped on one side": lambda image: cropped(image, 0.05, 0.0),
    "brightened": lambda image: ImageEnhance.Brightness(image.convert("RGB")).enhance(1.15),
    "flatter": lambda image: ImageEnhance.Contrast(image.convert("RGB")).enhance(0.8),
}


def splits(root: Path) -> dict[str, str]:
    files = [path.relative_to(root) for folder in ("train", "test") for path in (root / folder).rglob("*.*g")]
    return {path.as_posix(): path.parts[0] for path in files}


def found(root: Path) -> set[tuple[str, str]]:
    names = splits(root)
    return {(pair.one, pair.other) for pair in near_duplicates(root, names, {name: name for name in names})}


def test_parts_of_one_line_are_no_copies(tmp_path: Path):
    assert found(line(tmp_path)) == set()


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_among_their_look_alikes(tmp_path: Path, kind: str):
    line(tmp_path)
    for number in (3, 17):
        with Image.open(tmp_path / f"train/good/{number:03d}.png") as image:
            COPIES[kind](image).save(tmp_path / f"test/good/copy{number}.png")
    expected = {(f"test/good/copy{number}.png", f"train/good/{number:03d}.png") for number in (3, 17)}
    assert found(tmp_path) == expected


def test_several_copies_of_one_photograph_do_not_hide_each_other(tmp_path: Path):
    line(tmp_path)
    with Image.open(tmp_path / "train/good/005.png") as image:
        for number, quality in enumerate((95, 80, 60)):
            saved_again(image, quality).save(tmp_path / f"test/good/copy{number}.png")
    assert {pair for pair in found(tmp_path) if pair[1] == "train/good/005.png"} == {
        (f"test/good/copy{number}.png", "train/good/005.png") for number in range(3)
    }


def test_equal_pixels_in_other_files_and_copies_within_a_split(tmp_path: Path):
    line(tmp_path, train=4, test=2)
    with Image.open(tmp_path / "train/good/000.png") as image:
        image.save(tmp_path / "test/good/same.png", compress_level=0)
        image.save(tmp_path / "train/good/twin.png", compress_level=1)
    pairs = found(tmp_path)
    assert ("test/good/same.png", "train/good/000.png") in pairs
    assert ("test/good/same.png", "train/good/twin.png") in pairs
    assert all(one.startswith("test") and other.startswith("train") for one, other in pairs)
    names = splits(tmp_path)
    equal = near_duplicates(tmp_path, names, dict.fromkeys(names, "one content"))
    assert not equal, "files of equal content are the other check's"
    assert near_duplicates(tmp_path, dict.fromkeys(names, "train"), {name: name for name in names}) == []


def test_flat_pictures_say_nothing(tmp_path: Path):
    for folder, grey in (("train", 100), ("test", 120)):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.new("L", (40, 40), grey + number).save(tmp_path / folder / f"{number}.png")
    assert found(tmp_path) == set()


def test_a_crop_is_laid_back_in_its_place():
    random = np.random.default_rng(0)
    whole = gaussian_filter(random.normal(0, 1, (128, 128)), 4).astype(np.float32)
    true = Placement(0.06, -0.03, 0.04, 0.05)
    undone = register(1.3 * true.apply(whole) + 2, whole, (16, 32, 64))
    for name in ("scale_y", "scale_x"):
        both = (1 + getattr(undone, name)) * (1 + getattr(true, name))
        assert both == pytest.approx(1, abs=0.01)
    assert Placement().inside(8).all()
    assert Placement(0.2).inside(8).mean() < 1


def test_many_pictures_are_laid_back_as_one_by_one_and_resampled_as_scipy_does():
    random = np.random.default_rng(1)
    wholes = gaussian_filter(random.normal(0, 1, (5, 64, 64)), (0, 3, 3)).astype(np.float32)
    true = [Placement(*place) for place in random.uniform(-0.06, 0.06, (5, 4))]
    moving = np.stack([place.apply(whole) for place, whole in zip(true, wholes, strict=True)])
    moving[3] = 7.0  # flat: nothing to hold on to
    together = register_all(moving, wholes, (16, 32))
    assert [place is None for place in together] == [False, False, False, True, False]
    for place, picture, whole in zip(together, moving, wholes, strict=True):
        alone = register(picture, whole, (16, 32))
        assert (place is None and alone is None) or astuple(place) == pytest.approx(astuple(alone), abs=1e-6)
    place, centre = true[0], 31.5
    scale, shift = np.array([1 + place.scale_y, 1 + place.scale_x]), np.array([place.shift_y, place.shift_x])
    plain = affine_transform(wholes[0], scale, centre - scale * centre + shift * centre, order=1, mode="nearest")
    np.testing.assert_allclose(place.apply(wholes[0]), plain, atol=1e-5)


def test_check_warns_and_training_would_still_start(tmp_path: Path):
    line(tmp_path)
    with Image.open(tmp_path / "train/good/003.png") as image:
        saved_again(image, 80).save(tmp_path / "test/good/copy.jpg")
    report = check(tmp_path)
    assert report.ok
    assert "Near-duplicates in two splits" in report.text
    assert "test/good/copy.jpg" in report.text
    assert "train/good/003.png (train)" in report.text
    assert "Near-duplicates" not in check(tmp_path, near=False).text


def exposures(root: Path) -> list[set[str]]:
    """A flat dataset whose good and bad folders hold several exposures of some tiles; return the sets of one tile."""
    line(root, train=18, test=10)
    (root / "train/good").rename(root / "good")
    (root / "test/crack").rename(root / "bad")
    shutil.rmtree(root / "test")
    sets = []
    for folder, number in (("good", 2), ("good", 9), ("bad", 1)):
        names = {f"{folder}/{number:03d}.png"}
        with Image.open(root / f"{folder}/{number:03d}.png") as image:
            for exposure in (0.9, 1.1):
                name = f"{folder}/{number:03d}_{exposure}.png"
                ImageEnhance.Brightness(image).enhance(exposure).save(root / name)
                names.add(name)
        sets.append(names)
    return sorted(sets, key=min)


def test_the_group_near_duplicates_keeps_exposures_of_one_tile_in_one_split(tmp_path: Path):
    sets = exposures(tmp_path)
    parted = 0
    for seed in range(4):
        options = {"val_split_mode": "from_test", "seed": seed, "test_split_ratio": 0.5}
        manifest = build_manifest(tmp_path, group="near_duplicates", **options)
        assert manifest.protocol.copies == [sorted(names) for names in sets]
        split = {entry.path: entry.split for entry in manifest.entries}
        assert all(len({split[path] for path in names}) == 1 for names in sets)
        assert Manifest.from_json(manifest.to_json()) == manifest
        plain = {entry.path: entry.split for entry in build_manifest(tmp_path, **options).entries}
        parted += any(len({plain[path] for path in names}) > 1 for names in sets)
    assert parted, "without the group the seeds part some"
    text = check(tmp_path, group="near_duplicates").text
    assert "9 of 29 images are near-duplicates of another, in 3 sets (group near_duplicates)" in text
    assert "Near-duplicates in two splits" not in text


def test_near_duplicates_that_folders_part_are_an_error_of_the_group(tmp_path: Path):
    line(tmp_path)
    with Image.open(tmp_path / "train/good/003.png") as image:
        saved_again(image, 80).save(tmp_path / "test/good/copy.jpg")
    with pytest.raises(DataError, match=r"(?s)folders decide their split.*test/good/copy\.jpg"):
        build_manifest(tmp_path, group="near_duplicates")


def test_files_of_equal_content_are_copies_too(tmp_path: Path):
    line(tmp_path, train=4, test=2)
    shutil.copy(tmp_path / "train/good/000.png", tmp_path / "train/good/twin.png")
    contents = {name: probe(tmp_path / name).sha256 for name in splits(tmp_path)}
    assert sets_of_copies(tmp_path, contents) == [["train/good/000.png", "train/good/twin.png"]]


def test_pairs_are_counted_and_told_before_a_training(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch):
    line(tmp_path, train=12, test=4)
    names = splits(tmp_path)
    assert count_leaks(tmp_path, names, {name: name for name in names}) == 0
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    for number in range(2):
        with Image.open(tmp_path / f"train/good/{number:03d}.png") as image:
            saved_again(image, 80).save(tmp_path / f"test/good/copy{number}.jpg")
    names = splits(tmp_path)
    assert count_leaks(tmp_path, names, {name: name for name in names}) == 2
    assert "2 pairs of near-duplicates lie in two splits" in caplog.text
    assert "data.group: near_duplicates" in caplog.text
    monkeypatch.setattr("defectlab.data.manifest.near_duplicates.MAX_CHECKED", 10)
    assert count_leaks(tmp_path, names, {name: name for name in names}) is None


@pytest.mark.long
@pytest.mark.real
@pytest.mark.parametrize("name", ["bottle", "transistor"])
def test_photographs_of_a_real_line(real: Path, tmp_path: Path, name: str):
    root = real / f"mvtec_{name}_512"
    assert "Near-duplicates" not in check(root).text
    copies = tmp_path / "copies"
    for folder in ("train", "test"):
        (copies / folder).mkdir(parents=True)
    for path in sorted((root / "train/good").iterdir()):
        (copies / "train" / path.name).symlink_to(path)
    expected = set()
    photographs = iter(sorted((root / "train/good").iterdir())[::9])
    for kind, change in COPIES.items():
        for number in range(3):
            path = next(photographs)
            if kind == "brightened" and name == "bottle":  # its light ground saturates: detail is lost
                continue
            with Image.open(path) as image:
                change(image).convert("RGB").save(copies / "test" / f"{kind}{number}.png")
            expected.add((f"test/{kind}{number}.png", f"train/{path.name}"))
    assert found(copies) == expected
