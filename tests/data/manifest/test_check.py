"""The text of `defectlab data check`."""

import os
from pathlib import Path

import pytest
from helpers.datasets import mvtec, write_mask

from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import build_manifest

REAL = os.environ.get("DEFECTLAB_REAL")


def test_a_sound_dataset(tmp_path):
    report = check(mvtec(tmp_path))
    assert report.ok
    for words in (
        "Layout: mvtec",
        "abnormal_dirs: test/crack, test/hole",
        "Images: 23 readable (23 of 8 x 6 RGB)",
        "Masks: 7 for 7 anomalous images",
        "train         10  good 10",
        "validation     6  good 3, crack 2, hole 1",
        "test           7  good 3, crack 2, hole 2",
        "50% of the test images",
        build_manifest(tmp_path).hash,
        "ready to train",
    ):
        assert words in report.text


def test_problems_and_warnings_are_told_not_raised(tmp_path):
    mvtec(tmp_path)
    (tmp_path / "train/good/000.png").write_bytes(b"")
    write_mask(tmp_path / "ground_truth/hole/orphan.png")
    report = check(tmp_path)
    assert not report.ok
    for words in ("train/good/000.png: empty file", "orphan.png", "training would stop; 1 problem, 1 warning."):
        assert words in report.text
    assert "Manifest hash" not in report.text


def test_no_dataset_at_all(tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        report = check(root)
        assert not report.ok
        assert "training would stop here" in report.text


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="DEFECTLAB_REAL is not set")
def test_real_photographs():
    bottle = build_manifest(Path(str(REAL)) / "mvtec_bottle_512")
    assert {split: sum(kinds.values()) for split, kinds in bottle.counts().items()} == {
        "train": 209,
        "validation": 41,
        "test": 42,
    }
    assert bottle.has_masks
    transistor = check(Path(str(REAL)) / "mvtec_transistor_512")
    assert transistor.ok
    assert "none: image metrics only" in transistor.text
