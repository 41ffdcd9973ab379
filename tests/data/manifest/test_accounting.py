"""Every folder with pictures below the root is used or named as not used."""

from pathlib import Path

from helpers.datasets import mvtec, write_image, write_mask

from defectlab.data.labelled_folder import bare_manifest
from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import build_manifest


def test_folders_that_a_layout_leaves_out_are_named_with_the_options_that_use_them(tmp_path):
    for number in range(6):
        write_image(tmp_path / f"good/{number}.png")
    for name in ("scratch/Imgs/0.png", "scratch/Imgs/1.png", "loose.png"):
        write_image(tmp_path / name)
    (warning,) = build_manifest(tmp_path).warnings
    assert ". (1 image)" in warning
    assert "scratch/Imgs (2 images)" in warning
    assert f"Folder(root='{tmp_path}', normal_dir='good', abnormal_dir='scratch/Imgs')" in warning


def test_a_layout_that_uses_everything_warns_of_nothing(tmp_path):
    mvtec(tmp_path)
    write_image(tmp_path / "test/crack/deep/er/x.png")
    write_image(tmp_path / "test/unknown/x.png")
    write_image(tmp_path / "train/good/.hidden/x.png")
    write_image(tmp_path / "test/good/@eaDir/x.png")
    manifest = build_manifest(tmp_path, missing_masks="leave_out")
    assert manifest.warnings == ()
    assert sum(entry.defect == "good" for entry in manifest.entries) == 16


def test_masks_that_are_read_or_not_wanted_are_no_unused_pictures(tmp_path):
    mvtec(tmp_path)
    assert build_manifest(tmp_path, task="classification").warnings == ()
    write_mask(tmp_path / "ground_truth/good/000.png")
    (warning,) = build_manifest(tmp_path).warnings
    assert "whose mask marks something" in warning
    write_mask(tmp_path / "ground_truth/dent/000.png")
    assert any("ground_truth/dent (1 image)" in warning for warning in build_manifest(tmp_path).warnings)
    report = check(
        tmp_path, normal_dir="train/good", abnormal_dir="test/crack", mask_dir="ground_truth/crack", near=False
    )
    assert "that no option names: ground_truth/dent (1 image), ground_truth/hole (3 images), test/good" in report.text


def test_images_beside_the_folders_and_reasons(tmp_path):
    mvtec(tmp_path)
    for name in ("train/x.png", "train/extra/x.png", "val/unknown/x.png"):
        write_image(tmp_path / name)
    (warning,) = build_manifest(tmp_path).warnings
    assert "train (1 image)" in warning
    assert "train/extra (1 image)" in warning
    assert "val/unknown (1 image): its images have no label to validate by" in warning
    assert "unknown_dir" not in warning


def test_folders_left_out_by_name_are_a_note(tmp_path):
    report = check(mvtec(tmp_path), normal_dir="train/good", abnormal_dir="test/crack", near=False)
    assert "Note: Folders with pictures that no option names: ground_truth/crack (4 images)" in report.text
    assert "test/hole (3 images)" in report.text
    assert "0 warnings" in report.text
    assert build_manifest(None, normal_dir=tmp_path / "train/good").warnings == ()


def test_a_test_without_good_images_of_its_own_is_told(tmp_path):
    (warning,) = build_manifest(mvtec(tmp_path, good=0)).warnings
    assert "test/ has no folder of good images" in warning
    assert "some of train/good are kept from training" in warning


def test_good_images_alone_are_told(tmp_path):
    for number in range(5):
        write_image(tmp_path / f"{number}.png")
    report = check(tmp_path, near=False)
    assert "Note: All 5 images are taken for good ones to train on" in report.text
    assert report.ok


def test_test_folders_alone_are_accounted_for_too(tmp_path):
    for name in ("good/x.png", "crack/x.png", "x.png"):
        write_image(tmp_path / name)
    (warning,) = bare_manifest(tmp_path).warnings
    assert ". (1 image)" in warning


def test_pictures_of_a_kind_that_is_not_read_are_counted_and_named(tmp_path):
    mvtec(tmp_path)
    for name in ("train/good/a.heic", "train/good/b.HEIC", "test/crack/c.gif", "notes/d.CR2", "notes/e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (warning,) = build_manifest(tmp_path).warnings
    assert warning.splitlines()[1:] == [
        "  .: 1 .cr2 such as notes/d.CR2",
        "  .: 1 .gif such as test/crack/c.gif",
        "  .: 2 .heic such as train/good/a.heic",
    ]
    (warning,) = build_manifest(tmp_path, normal_dir="train/good").warnings
    assert "train/good: 2 .heic such as a.heic" in warning
    assert "gif" not in warning


def test_images_beside_a_folder_of_masks_are_not_all_good_in_silence(tmp_path: Path) -> None:
    for place in range(8):
        write_image(tmp_path / "images" / f"{place}.png", seed=place)
    write_mask(tmp_path / "masks" / "3.png")
    report = check(root=tmp_path / "images", near=False)
    assert "Masks beside this folder" in report.text
    assert "normal_dir=images" in report.text
    (tmp_path / "masks").rename(tmp_path / "notes")
    assert "Masks beside" not in check(root=tmp_path / "images", near=False).text


def test_a_folder_that_is_not_there_says_where_images_come_from(tmp_path: Path) -> None:
    assert "`defectlab data sample`" in check(root=tmp_path / "bottle", near=False).text
