"""Masks of a dataset that look wrong are named, and what they mark is recorded and read everywhere in the same way."""

import numpy as np
import pytest
from PIL import Image

from defectlab.data.datasets import load_mask
from defectlab.data.folder import Folder
from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab.data.mask_content import MaskReading
from defectlab.data.mask_files import read_mask
from defectlab.results.pixel_grid import masks_on_images
from defectlab.utils.paths import relative
from defectlab_runtime.errors import DataError, OptionError
from defectlab_runtime.image_decoding import ORIENTATION_TAG
from tests.helpers.datasets import mvtec, write_image

SIZE = (40, 40)


def square(value: int = 255, edge: int = 0) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[9:21, 9:21] = edge
    mask[10:20, 10:20] = value
    return mask


def dataset(root, *masks: np.ndarray):
    """Write a dataset with one anomalous image for each mask."""
    mvtec(root, kinds={"crack": len(masks)})
    for number, mask in enumerate(masks):
        write_image(root / f"test/crack/{number:03d}.png", size=SIZE)
        Image.fromarray(mask).save(root / f"ground_truth/crack/{number:03d}_mask.png")
    return root


def test_masks_that_look_wrong_are_named(tmp_path):
    clear = np.dstack([square()] * 4)
    coloured = Image.fromarray((square() > 0).astype(np.uint8)).convert("P")
    coloured.putdata((square() > 0).ravel().tolist())
    coloured.putpalette([255, 255, 255, 0, 0, 0])
    dataset(tmp_path, square(), square(0), square() * 0 + 255, 255 - square(), square(edge=96), clear, square())
    coloured.save(tmp_path / "ground_truth/crack/006_mask.png")
    text = check(tmp_path, near=False).text
    crack = "ground_truth/crack"
    assert f"that mark nothing: every pixel counts as good (1):\n  {crack}/001_mask.png\n" in text
    assert f"mark the whole image: where they mark what is good, say mask_inverted: true (1):\n  {crack}/002" in text
    assert f"  {crack}/003_mask.png: 93.8%\n  {crack}/006_mask.png: 93.8%\n" in text
    assert f"  {crack}/004_mask.png: 3 levels from 0 to 255, marks 100 of 144 pixels that are not 0" in text
    assert f"transparent pixels, which count as 0 (1):\n  {crack}/005" in text
    assert f"palette whose numbers and colours mark different pixels (1):\n  {crack}/006_mask.png: colours" in text
    assert "Note: Masks: what is above 127 counts as defect (1 masks have soft edges or noise: half" in text


def test_masks_as_they_should_be_are_not_warned_of_and_leave_the_hash_as_it_was(tmp_path):
    manifest = build_manifest(dataset(tmp_path, square(), square(1)))
    assert manifest.warnings == ()
    assert manifest.protocol.mask_reading == {"threshold": 0, "inverted": False, "not_zero": True}
    before = manifest.to_json()
    del before["protocol"]["mask_reading"]
    assert Manifest.from_json(before).mask_reading(manifest.entries[0]) == MaskReading(0)


def test_masks_of_good_images_that_mark_something(tmp_path):
    dataset(tmp_path, square())
    for number, value in ((0, 0), (1, 255)):
        path = tmp_path / f"ground_truth/good/{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(square(value)).save(path)
    warnings = "\n".join(build_manifest(tmp_path).warnings)
    assert (
        "Good images whose mask marks something, and is not used: are they good? (1):\n  test/good/001.png" in warnings
    )


@pytest.mark.parametrize(
    ("options", "marked"), [({}, 100), ({"mask_threshold": 50}, 144), ({"mask_inverted": True}, 1500)]
)
def test_all_that_read_masks_read_them_alike(tmp_path, options, marked):
    data = Folder(root=dataset(tmp_path, *[square(edge=96)] * 4), num_workers=0, **options)
    data.setup()
    manifest = data.manifest
    not_zero = build_manifest(tmp_path, mask_threshold=0)
    assert (manifest.hash == not_zero.hash) == (marked == 144), "the hash is of what is marked"
    items = [data.test_data[place] for place in range(len(data.test_data))]
    read = [item.gt_mask.sum().item() for item in items if item.gt_label]
    bad = [entry for entry in manifest.split("test") if entry.mask]
    names = [relative(manifest.absolute(entry)) for entry in bad]
    on_images = [mask.sum() for mask, _, _ in masks_on_images(manifest, names, None, "area")]
    shared = [load_mask(manifest.absolute_mask(one), SIZE, manifest.mask_reading(one)).sum().item() for one in bad]
    assert read == on_images == shared == [marked] * len(bad)
    assert data.options.keys() & {"mask_threshold", "mask_inverted"} == options.keys()


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
def test_masks_of_images_that_exif_turns(tmp_path, orientation, drawn_on):
    stored = square()
    stored[30:35, 2:4] = 255
    dataset(tmp_path, stored, stored)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    write_image(tmp_path / "test/crack/000.png", size=SIZE, exif=exif)
    name = "ground_truth/crack/000_mask.png: test/crack/000.png has EXIF orientation"
    assert f"(1):\n  {name} {orientation}" in "\n".join(build_manifest(tmp_path).warnings)
    manifest = build_manifest(tmp_path, mask_orientation=drawn_on)
    assert "EXIF" not in "\n".join(manifest.warnings)
    turned, plain = (entry for entry in manifest.entries if entry.mask)
    turns = {3: 2, 6: -1, 8: 1}[orientation] if drawn_on == "stored" else 0
    for entry, expected in ((turned, np.rot90(stored, turns)), (plain, stored)):
        mask = read_mask(manifest.absolute_mask(entry), manifest.mask_reading(entry))
        np.testing.assert_array_equal(mask, expected > 0)
    assert (manifest.hash == build_manifest(tmp_path).hash) == (drawn_on == "upright")
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_mask_of_the_stored_size_of_a_turned_image(tmp_path):
    dataset(tmp_path, square()[:, :20])
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    write_image(tmp_path / "test/crack/000.png", size=(20, 40), exif=exif)
    with pytest.raises(DataError, match="say mask_orientation: stored"):
        build_manifest(tmp_path)
    manifest = build_manifest(tmp_path, mask_orientation="stored")
    assert "EXIF" not in "\n".join(manifest.warnings)
    entry = next(entry for entry in manifest.entries if entry.mask)
    mask = read_mask(manifest.absolute_mask(entry), manifest.mask_reading(entry))
    np.testing.assert_array_equal(mask, np.rot90(square()[:, :20], -1) > 0)
    assert mask.shape == (entry.height, entry.width)


def test_options_that_cannot_be(tmp_path):
    with pytest.raises(OptionError, match="mask_threshold must be a number"):
        build_manifest(tmp_path, mask_threshold=-1)
    with pytest.raises(OptionError, match="mask_inverted must be true or false"):
        build_manifest(tmp_path, mask_inverted="no")
    with pytest.raises(OptionError, match="mask_orientation"):
        build_manifest(tmp_path, mask_orientation="turned")
