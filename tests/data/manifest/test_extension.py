"""A manifest with more good training images; what cannot join is named."""

import shutil
from pathlib import Path

import pytest
from helpers.datasets import mvtec, write_image

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
