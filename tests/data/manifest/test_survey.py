"""Equal files, never parted by the seed; defects without a mask; and which task asks for masks."""

from pathlib import Path

import pytest
from helpers.datasets import mvtec, write_image

from defectlab.cli.main import main
from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import build_manifest
from defectlab_runtime.errors import DataError, OptionError


@pytest.mark.parametrize(
    ("one", "other", "title"),
    [
        ("train/good/x.png", "test/good/y.png", "in two splits"),
        ("train/good/x.png", "test/crack/y.png", "labelled good and anomalous"),
        ("test/good/x.png", "test/crack/y.png", "labelled good and anomalous"),
    ],
)
def test_equal_files_across_a_border(tmp_path, one, other, title):
    mvtec(tmp_path, masks=False)
    for path in (one, other):
        write_image(tmp_path / path, seed=1)
    with pytest.raises(DataError) as caught:
        build_manifest(tmp_path)
    for words in (title, one, other, "on_duplicate: warn"):
        assert words in str(caught.value)
    manifest = build_manifest(tmp_path, on_duplicate="warn")
    assert any(title in warning and one in warning and other in warning for warning in manifest.warnings)


def test_equal_files_within_a_split_warn(tmp_path):
    mvtec(tmp_path)
    for name in ("x.png", "y.png"):
        write_image(tmp_path / "train/good" / name, seed=1)
    (warning,) = build_manifest(tmp_path).warnings
    assert "within one split" in warning
    assert "train/good/x.png (train), train/good/y.png (train)" in warning


def test_the_seed_never_parts_equal_files(tmp_path):
    mvtec(tmp_path)
    for name in ("x.png", "y.png", "z.png"):
        write_image(tmp_path / "test/good" / name, seed=1)
    for seed in range(12):  # any of these would raise if the three were parted
        counts = build_manifest(tmp_path, seed=seed).counts()
        assert counts["validation"]["good"] + counts["test"]["good"] == 9
    for i in range(3):
        write_image(tmp_path / f"ok/{i}.png")
        write_image(tmp_path / f"ok/{i}_again.png", seed=77)
    for seed in range(6):
        manifest = build_manifest(tmp_path, normal_dir="ok", abnormal_dir="test/crack", seed=seed, test_split_ratio=0.5)
        assert {e.split for e in manifest.entries if e.path.endswith("again.png")} != {"train", "test"}


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


def test_the_command_takes_the_rules(tmp_path, capsys):
    assert main(["data", "check", str(bare(tmp_path)), "--near", "false"]) == 1
    arguments = ["--missing_masks", "leave_out", "--crop_area", "[1, 1, 5, 5]", "--near", "false"]
    assert main(["data", "check", str(tmp_path), *arguments]) == 0
    assert "left out of the pixel metrics (missing_masks)" in capsys.readouterr().out


def test_equal_files_of_two_kinds_are_said_to_be_that(tmp_path):
    mvtec(tmp_path, masks=False)
    for path in ("test/crack/x.png", "test/hole/y.png"):
        write_image(tmp_path / path, seed=1)
    text = "\n".join(build_manifest(tmp_path, val_split_mode="same_as_test").warnings)
    assert "The same content as two kinds of defect (1):\n  test/crack/x.png (test), test/hole/y.png (test)" in text
    texts = [check(tmp_path, seed=seed, near=False).text for seed in range(8)]
    assert any("The same content as two kinds of defect, in two splits: remove one" in text for text in texts)


def test_an_empty_validation_is_told_before_training(tmp_path):
    mvtec(tmp_path, good=1, kinds={"crack": 1})
    (warning,) = [text for text in build_manifest(tmp_path).warnings if "No validation" in text]
    assert "1 good and 1 anomalous images in all are too few to share" in warning
    for options in ({"val_split_mode": "same_as_test"}, {"val_split_mode": "from_train"}, {"val_split_mode": "none"}):
        assert not any("No validation" in text for text in build_manifest(tmp_path, **options).warnings)
    assert "No validation images, so no thresholds" in check(tmp_path, near=False).text
