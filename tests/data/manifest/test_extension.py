"""A manifest with more good training images; what cannot join is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import make_parts, mvtec, write_image
from PIL import Image

from defectlab.data.manifest.extension import with_training_images
from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab_runtime.errors import DataError


def manifest_of(tmp_path: Path, **options) -> Manifest:
    mvtec(tmp_path / "parts", train=6, good=4)
    return build_manifest(tmp_path / "parts", **options)


def test_new_images_are_trained_on_and_the_rest_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    manifest = manifest_of(tmp_path)
    new = [write_image(tmp_path / f"more/{number}.png", seed=100 + number) for number in range(2)]
    known = manifest.absolute(manifest.split("train")[0])
    extended = with_training_images(manifest, [*new, known, shutil.copy(new[0], tmp_path / "again.png")])
    assert "2 of these images are trained on already" in caplog.text
    assert {entry.path for entry in extended.split("train")} - {entry.path for entry in manifest.split("train")} == {
        file.as_posix() for file in new
    }
    for split in ("validation", "test"):
        assert extended.split(split) == manifest.split(split)
    assert extended.counts()["train"]["good"] == manifest.counts()["train"]["good"] + 2
    assert extended.hash != manifest.hash


def test_an_image_of_a_part_that_is_tested_is_refused(tmp_path: Path):
    manifest = manifest_of(tmp_path, group=r"(\w+)\.png$", on_duplicate="warn")
    tested = Path(manifest.split("test")[0].path).stem
    same = write_image(tmp_path / f"more/{tested}.png", seed=7)
    with pytest.raises(DataError, match=rf"shows part {tested}, as does .* in (test|validation)"):
        with_training_images(manifest, [same])
    other = write_image(tmp_path / "more/another.png", seed=8)
    assert len(with_training_images(manifest, [other]).split("train")) == len(manifest.split("train")) + 1


def test_the_folders_above_an_image_from_elsewhere_are_no_part(tmp_path: Path):
    """A pattern is for paths below the root: of .../2024/more/003.png it would name part 2024."""
    manifest = manifest_of(tmp_path, group=r"(\d+)", on_duplicate="warn")
    tested = Path(manifest.split("test")[0].path).stem
    same = write_image(tmp_path / f"2024/more/{tested}.png", seed=7)
    with pytest.raises(DataError, match=rf"shows part {tested}, as does .* in (test|validation)"):
        with_training_images(manifest, [same])
    other = write_image(tmp_path / f"{tested}/more/777.png", seed=8)
    assert len(with_training_images(manifest, [other]).split("train")) == len(manifest.split("train")) + 1


def test_with_near_duplicates_as_groups_a_copy_of_a_tested_image_is_refused(tmp_path: Path):
    manifest = build_manifest(make_parts(tmp_path / "parts"), group="near_duplicates")
    tested = manifest.split("test")[0]
    with Image.open(manifest.absolute(tested)) as image:
        image.save(tmp_path / "copy.jpg", quality=97)
    with pytest.raises(DataError, match=rf"copy.jpg is a near-duplicate of {tested.path}, which is in test"):
        with_training_images(manifest, [tmp_path / "copy.jpg"])
    other = write_image(tmp_path / "more/other.png", size=(64, 64), seed=8)
    assert len(with_training_images(manifest, [other]).split("train")) == len(manifest.split("train")) + 1


def test_images_of_the_run_that_are_gone_are_said_to_be(tmp_path: Path):
    manifest = manifest_of(tmp_path)
    new = write_image(tmp_path / "more/new.png", seed=100)
    gone = manifest.split("train")[0]
    manifest.absolute(gone).rename(tmp_path / "away.png")
    with pytest.raises(DataError, match=rf"{gone.path} of the run: .*(no such file|not found|does not exist)"):
        with_training_images(manifest, [new])
    (tmp_path / "parts").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"no longer in .*parts: bring the folder back$"):
        with_training_images(manifest, [new])


def test_values_beyond_the_runs_bit_depth_are_refused(tmp_path: Path):
    manifest = manifest_of(tmp_path, bit_depth=12)
    for name, value in (("fits", 4095), ("beyond", 4096)):
        Image.fromarray(np.full((6, 8), value, np.uint16)).save(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match=r"together:\n  .*beyond\.png: values beyond bit_depth 12$"):
        with_training_images(manifest, [tmp_path / "fits.png", tmp_path / "beyond.png"])
