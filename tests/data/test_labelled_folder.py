"""A folder of test images alone."""

from pathlib import Path

import pytest
from helpers.datasets import make_parts
from PIL import Image

from defectlab.data.labelled_folder import LabelledFolder, bare_manifest, has_no_training_images
from defectlab_runtime.errors import DataError


def test_labels_kinds_and_masks(parts: Path, tmp_path: Path):
    assert not has_no_training_images(parts)
    assert has_no_training_images(parts / "test")
    manifest = bare_manifest(parts / "test")
    assert manifest.name == f"{parts.name}-test"
    assert manifest.counts() == {"train": {}, "validation": {}, "test": {"blot": 4, "good": 4}}
    assert manifest.has_masks
    assert all((entry.label == 1) == (entry.mask is not None) for entry in manifest.entries)
    assert {manifest.absolute_mask(entry).is_file() for entry in manifest.entries if entry.mask} == {True}
    make_parts(tmp_path / "made", defect="scratch", masks=False)
    bare = (tmp_path / "made/test").rename(tmp_path / "bare")
    (bare / "Unknown").mkdir()
    Image.new("RGB", (8, 8)).save(bare / "Unknown/a.png")
    manifest = LabelledFolder(bare).manifest
    assert manifest.counts()["test"] == {"good": 4, "scratch": 4, "unknown": 1}
    assert not manifest.has_masks


def test_what_has_no_labels_is_refused(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="good/ or bad/"):
        bare_manifest(tmp_path)
    for name in ("gut", "NG"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="'gut' would be a kind of defect"):
        bare_manifest(tmp_path)
    (tmp_path / "gut").rename(tmp_path / "good")
    (tmp_path / "good/a.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"good/a\.png"):
        bare_manifest(tmp_path)
