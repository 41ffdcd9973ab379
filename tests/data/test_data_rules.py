"""Rules for images on disk: unlabelled ones, defects without masks, names of masks and files, tasks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import mvtec, write_image, write_mask
from PIL import Image

from defectlab.cli.main import main
from defectlab.data.images import IMAGE_EXTENSIONS
from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab.utils.errors import DataError, OptionError


def with_unknown(root: Path, count: int = 3) -> Path:
    mvtec(root)
    for number in range(count):
        write_image(root / f"test/unknown/{number}.png")
    return root


def test_unknown_images_are_tested_and_decide_nothing(tmp_path):
    before = build_manifest(mvtec(tmp_path / "one"))
    manifest = build_manifest(with_unknown(tmp_path / "two"))
    assert manifest.hash == before.hash
    assert manifest.counts()["test"]["unknown"] == 3
    assert {e.label for e in manifest.entries if e.defect == "unknown"} == {-1}
    assert manifest.protocol.counts["test"] == {**before.protocol.counts["test"], "unknown": 3}
    assert "unknown" not in manifest.counts()["validation"]
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_unknown_images_never_validate(tmp_path):
    manifest = build_manifest(with_unknown(tmp_path), val_split_mode="same_as_test")
    assert sum(e.label == -1 for e in manifest.split("test")) == 3
    assert all(e.label >= 0 for e in manifest.split("validation"))


def test_unknown_images_may_be_copies_and_named(tmp_path):
    mvtec(tmp_path, masks=False)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/a.png").write_bytes((tmp_path / "train/good/000.png").read_bytes())
    named = {"normal_dir": "train/good", "abnormal_dir": "test/crack", "normal_test_dir": "test/good"}
    manifest = build_manifest(tmp_path, unknown_dir="new", **named)
    assert [e.path for e in manifest.entries if e.label == -1] == ["new/a.png"]
    with pytest.raises(OptionError, match="without normal_dir"):
        build_manifest(tmp_path, unknown_dir="new")


def bare(root: Path) -> Path:
    """One crack and every hole lack their mask."""
    mvtec(root)
    (root / "ground_truth/crack/001_mask.png").unlink()
    for file in (root / "ground_truth/hole").iterdir():
        file.unlink()
    (root / "ground_truth/hole").rmdir()
    return root


def test_defects_without_a_mask_are_an_error_unless_a_rule_is_given(tmp_path):
    with pytest.raises(DataError, match="missing_masks: whole or leave_out"):
        build_manifest(bare(tmp_path))
    hashes = set()
    for rule in ("whole", "leave_out"):
        manifest = build_manifest(tmp_path, missing_masks=rule)
        assert [e.path for e in manifest.without_mask] == [
            "test/crack/001.png", "test/hole/000.png", "test/hole/001.png", "test/hole/002.png"
        ]  # fmt: skip
        assert manifest.protocol.missing_masks == rule
        assert [manifest.is_all_defect(e) for e in manifest.without_mask] == [rule == "whole"] * 4
        assert not any(manifest.is_all_defect(e) for e in manifest.entries if e.label == 0)
        hashes.add(manifest.hash)
    assert len(hashes) == 2
    with pytest.raises(OptionError, match="Did you mean 'whole'"):
        build_manifest(tmp_path, missing_masks="whol")


def test_a_rule_that_nothing_needs_changes_nothing(tmp_path):
    plain = build_manifest(mvtec(tmp_path))
    for rule in ("whole", "leave_out"):
        manifest = build_manifest(tmp_path, missing_masks=rule)
        assert (manifest.hash, manifest.protocol.missing_masks) == (plain.hash, None)


@pytest.mark.row("3.3")
def test_a_mask_suffix_is_taken_at_its_word(tmp_path):
    root = mvtec(tmp_path, kinds={"crack": 3})
    for file in (root / "ground_truth/crack").iterdir():
        file.rename(file.with_name(file.name.replace("_mask", ".defect")))
    with pytest.raises(DataError, match="without a mask"):
        build_manifest(root)
    manifest = build_manifest(root, mask_suffix=".defect")
    assert [e.mask for e in manifest.entries if e.label] == [f"ground_truth/crack/00{n}.defect.png" for n in range(3)]
    with pytest.raises(DataError, match="without a mask"):
        build_manifest(root, mask_suffix="")


@pytest.mark.row("3.3")
@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "pbm", "pgm", "ppm", "pxm", "pnm"])
def test_every_ending_of_the_reference_is_an_image(tmp_path, ending):
    formats = {"pbm": ("1", "PPM"), "pgm": ("L", "PPM"), "ppm": ("RGB", "PPM"), "pxm": ("RGB", "PPM")}
    mode, kind = formats.get(ending, ("RGB", "PPM" if ending == "pnm" else None))
    for number in range(3):
        path = tmp_path / f"train/good/{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path, **({"format": kind} if kind else {}))
    assert len(build_manifest(tmp_path).entries) == 3
    assert f".{ending}" in IMAGE_EXTENSIONS


def test_the_task_decides_whether_masks_count(tmp_path):
    segmentation = build_manifest(mvtec(tmp_path))
    classified = build_manifest(tmp_path, task="classification")
    assert not classified.has_masks
    assert classified.hash != segmentation.hash == build_manifest(tmp_path, task="segmentation").hash
    assert "task: classification" in check(tmp_path, task="classification", near=False).text
    parts = {"normal_dir": "train/good", "abnormal_dir": "test/crack", "mask_dir": "ground_truth/crack"}
    assert not build_manifest(tmp_path, task="classification", **parts).has_masks
    with pytest.raises(DataError, match="say task: classification"):
        build_manifest(mvtec(tmp_path / "bare", masks=False), task="segmentation")
    with pytest.raises(OptionError, match="Did you mean 'classification'"):
        build_manifest(tmp_path, task="classificaton")


def test_validation_folders_share_the_ground_truth(tmp_path):
    root = mvtec(tmp_path, kinds={"crack": 2})
    for number in (7, 8):
        write_image(root / f"val/crack/{number:03d}.png")
        write_mask(root / f"ground_truth/crack/{number:03d}_mask.png")
        write_image(root / f"val/good/{number:03d}.png")
    manifest = build_manifest(root)
    assert manifest.counts()["validation"] == {"good": 2, "crack": 2}
    assert manifest.counts()["test"] == {"good": 6, "crack": 2}
    assert all(e.mask for e in manifest.entries if e.label)


def test_the_command_takes_the_rules(tmp_path, capsys):
    assert main(["data", "check", str(bare(tmp_path)), "--near", "false"]) == 1
    arguments = ["--missing_masks", "leave_out", "--crop_area", "[1, 1, 5, 5]", "--near", "false"]
    assert main(["data", "check", str(tmp_path), *arguments]) == 0
    assert "left out of the pixel metrics (missing_masks)" in capsys.readouterr().out


@pytest.mark.row("R.18")
def test_two_files_of_one_name_are_refused(tmp_path):
    root = mvtec(tmp_path)
    for name in ("\u00e4.png", "a\u0308.png"):  # one of them would have been taken for the other
        write_image(root / "train/good" / name)
    if len({path.name for path in (root / "train/good").iterdir() if not path.name.isascii()}) < 2:
        pytest.skip("this file system takes them for one")
    with pytest.raises(DataError, match=r"accents stored in two ways.*\n.*\\u0308"):
        build_manifest(root)


def test_older_manifests_have_no_rules(tmp_path):
    manifest = build_manifest(mvtec(tmp_path))
    data = manifest.to_json()
    data["protocol"] = {k: v for k, v in data["protocol"].items() if k not in ("task", "missing_masks")}
    assert Manifest.from_json(data) == replace(manifest)
