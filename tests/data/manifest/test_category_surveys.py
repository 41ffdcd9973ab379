"""One manifest of several categories, each as it would be alone."""

import shutil
from dataclasses import replace

import pytest
from helpers.categories import NAMES, make_categories
from helpers.datasets import make_parts, mvtec, well_set

from defectlab.data.folder import Folder
from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab_runtime.errors import DataError, OptionError


def test_each_category_has_the_splits_that_it_has_alone(categories):
    together = build_manifest(categories, categories=["nut", "bolt"], seed=7, calibration_share=0.5)
    assert [one.name for one in together.categories] == NAMES  # in the order of their names
    for one in together.categories:
        alone = build_manifest(categories / one.name, seed=7, calibration_share=0.5)
        assert one.entries == alone.entries
        assert one.hash == alone.hash
        own = [entry for entry in together.entries if entry.category == one.name]
        assert [entry.path for entry in own] == [f"{one.name}/{entry.path}" for entry in alone.entries]
        assert [entry.split for entry in own] == [entry.split for entry in alone.entries]
        assert {entry.path for entry in own if not together.chooses(entry)} == {
            f"{one.name}/{path}" for path in alone.calibration
        }
        assert all(together.absolute(entry).is_file() for entry in own)
        assert all(together.absolute_mask(entry).is_file() for entry in own if entry.label == 1)
    assert [entry.category for entry in together.entries] == sorted(entry.category for entry in together.entries)
    assert together.counts()["train"] == {"good": 16}
    assert together.protocol.counts["train"] == {"good": 16, "anomalous": 0}
    assert together.name == "bolt+nut"


def test_a_manifest_of_categories_is_read_back_and_differs_from_one_of_the_same_images(categories, tmp_path):
    together = build_manifest(categories, categories="all")
    read = Manifest.read(together.write(tmp_path / "manifest.json"))
    assert read == together
    assert read.hash == together.hash
    pooled = build_manifest(
        categories,
        normal_dir=[f"{name}/train/good" for name in NAMES],
        normal_test_dir=[f"{name}/test/good" for name in NAMES],
        abnormal_dir=[f"{name}/test/blot" for name in NAMES],
        mask_dir=[f"{name}/ground_truth/blot" for name in NAMES],
    )
    assert [entry.path for entry in pooled.entries] == [entry.path for entry in together.entries]
    assert pooled.hash != together.hash


def test_a_category_without_masks_beside_one_with_them(tmp_path):
    mvtec(tmp_path / "a")
    mvtec(tmp_path / "b", kinds={"crack": 4}, masks=False)
    together = build_manifest(tmp_path, categories="all", missing_masks="whole")
    assert together.has_masks
    assert [one.has_masks for one in together.categories] == [True, False]
    assert not any(together.is_all_defect(entry) for entry in together.entries)  # b has no masks that one could lack
    assert together.without_mask == ()


def test_what_cannot_work_is_refused_with_the_fix(tmp_path, categories):
    for options, says in (
        ({"categories": ["bolt", "nutt"]}, "Did you mean 'nut'"),
        ({"categories": ["bolt/", "nut"]}, "Did you mean 'bolt'"),
        ({"categories": ["bolt/train", "nut"]}, "Unknown category 'bolt/train'"),
        ({"categories": ["..", "nut"]}, r"Unknown category '\.\.'"),
        ({"categories": ["bolt"]}, r"root=.*bolt"),
    ):
        with pytest.raises(DataError, match=says):
            build_manifest(categories, **options)
    for options, says in (
        ({"categories": ["bolt", "bolt"]}, "bolt twice"),
        ({"categories": []}, "list of names"),
        ({"categories": [3]}, "list of names"),
        ({"categories": "all", "group": r"(\d+)"}, "group and categories do not go together.*leave group out"),
        ({"categories": "all", "valid_area_mask": "area.png"}, "valid_area_mask and categories"),
        ({"categories": "all", "normal_dir": "train/good"}, "normal_dir and categories"),
    ):
        with pytest.raises(OptionError, match=says):
            Folder(root=categories, **options)
    with pytest.raises(OptionError, match="give root too"):
        Folder(normal_dir="x", categories="all")
    (tmp_path / "empty/train/bad").mkdir(parents=True)
    make_parts(tmp_path / "bolt")
    with pytest.raises(DataError, match=r"needs good training images.*empty"):
        build_manifest(tmp_path, categories=["bolt", "empty"])
    (tmp_path / "hollow/train/good").mkdir(parents=True)
    with pytest.raises(DataError, match="hollow"):
        build_manifest(tmp_path, categories=["bolt", "hollow"])


def test_equal_content_in_two_categories_is_a_leak_unless_it_is_trained_on_twice(tmp_path):
    make_categories(tmp_path)
    shutil.copy(tmp_path / "bolt/train/good/000.png", tmp_path / "nut/train/good/twin.png")
    together = build_manifest(tmp_path, categories="all")
    assert any("same content in two categories" in warning for warning in together.warnings)
    shutil.copy(tmp_path / "bolt/train/good/001.png", tmp_path / "nut/test/good/twin.png")
    with pytest.raises(DataError, match=r"(?s)two categories, in two splits.*bolt/train/good/001.png \(train, good\)"):
        build_manifest(tmp_path, categories="all")
    assert not check(tmp_path, categories="all").ok
    assert build_manifest(tmp_path, categories="all", on_duplicate="warn").warnings


def test_check_shows_each_category_and_the_hash_of_all(categories):
    report = check(categories, categories="all")
    assert report.ok
    assert "Dataset bolt" in report.text
    assert "Dataset nut" in report.text
    assert f"One model for 2 categories (bolt+nut): manifest hash {report.manifest.hash}" in report.text
    assert not check(categories, categories="all", missing_masks="error", task="segmentation", near=False).text.count(
        "stop"
    )


def test_categories_of_different_layouts_say_where_their_images_come_from(tmp_path):
    well_set(tmp_path / "wells")
    make_parts(tmp_path / "bolt")
    protocol = build_manifest(tmp_path, categories="all").protocol
    assert protocol.val_split_mode == "bolt: from_test; wells: from_dir"
    assert protocol.validation_from.startswith("bolt: a seeded 50% of the test images")
    assert protocol.val_split_ratio is None


def test_an_entry_below_its_category_and_alone_again(categories):
    entry = build_manifest(categories / "bolt").entries[-1]
    assert entry.below("bolt").alone() == entry
    assert replace(entry.below("bolt"), category=None) != entry
