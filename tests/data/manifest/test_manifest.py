"""The manifest: what is in which split, its hash, and its JSON."""

import json
import logging
import os
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.datasets import mvtec, write_image, write_mask

from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab_runtime.errors import DataError, OptionError

GOLDEN_VALIDATION = [
    "test/crack/000.png",
    "test/crack/003.png",
    "test/good/001.png",
    "test/good/003.png",
    "test/good/004.png",
    "test/hole/002.png",
]
PARTS = {"normal_dir": "train/good", "abnormal_dir": ["test/crack", "test/hole"], "normal_test_dir": "test/good"}


def by_split(manifest):
    return {name: [e.path for e in manifest.split(name)] for name in ("train", "validation", "test")}


def test_default_split_of_mvtec_is_half_of_test(tmp_path):
    manifest = build_manifest(mvtec(tmp_path, kinds={"crack": 4, "hole": 3}))
    assert manifest.counts() == {
        "train": {"good": 10},
        "validation": {"good": 3, "crack": 2, "hole": 1},
        "test": {"good": 3, "crack": 2, "hole": 2},
    }
    assert manifest.layout == "mvtec"
    assert manifest.name == tmp_path.name
    assert manifest.has_masks
    assert [e.path for e in manifest.entries] == sorted(e.path for e in manifest.entries)
    assert manifest.protocol.counts["validation"] == {"good": 3, "anomalous": 3}
    assert manifest.protocol.val_split_mode == "from_test"
    assert "50%" in manifest.protocol.validation_from
    assert not manifest.protocol.validation_is_test
    for entry in manifest.entries:
        assert (entry.label == 1) == (entry.defect != "good") == (entry.mask is not None) == bool(entry.mask_sha256)
        assert (entry.width, entry.height) == (8, 6)
        assert manifest.absolute(entry).is_file()
        if entry.mask:
            assert entry.mask == f"ground_truth/{entry.defect}/{Path(entry.path).stem}_mask.png"


def test_golden_split(tmp_path):
    """Hard-coded: another machine, Python or Pillow must give the same files."""
    splits = by_split(build_manifest(mvtec(tmp_path), seed=42))
    assert splits["validation"] == GOLDEN_VALIDATION
    assert len(splits["test"]) == 7
    other = by_split(build_manifest(tmp_path, seed=43))
    assert other["validation"] != GOLDEN_VALIDATION
    assert other["train"] == splits["train"]


def test_split_is_the_same_in_another_process_with_another_hash_seed(tmp_path):
    manifest = build_manifest(mvtec(tmp_path))
    code = "import sys; from defectlab.data.manifest.manifest import build_manifest\n"
    code += "print(build_manifest(sys.argv[1]).hash)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[3])},
        check=True,
    )
    assert done.stdout.strip() == manifest.hash


@pytest.mark.row("3.4")
def test_hash_follows_content_and_use_not_place(tmp_path):
    manifest = build_manifest(mvtec(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert build_manifest(tmp_path / "b", name="other").hash == manifest.hash
    assert build_manifest(tmp_path / "a", mask_dir=["ground_truth/crack", "ground_truth/hole"], **PARTS).hash == (
        manifest.hash
    )
    hashes = {manifest.hash}
    hashes.add(build_manifest(tmp_path / "a", seed=1).hash)
    hashes.add(build_manifest(tmp_path / "a", **PARTS).hash)  # no masks
    hashes.add(build_manifest(tmp_path / "a", val_split_mode="same_as_test").hash)
    write_mask(tmp_path / "b/ground_truth/hole/001_mask.png", size=(16, 12))
    hashes.add(build_manifest(tmp_path / "b").hash)
    write_image(tmp_path / "b/train/good/001.png", seed=1)
    hashes.add(build_manifest(tmp_path / "b").hash)
    assert len(hashes) == 6


def test_json_there_and_back(tmp_path):
    manifest = build_manifest(mvtec(tmp_path / "Деталь"))
    path = manifest.write(tmp_path / "out" / "manifest.json")
    assert Manifest.read(path) == manifest
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))).hash == manifest.hash
    assert [p.name for p in path.parent.iterdir()] == ["manifest.json"]
    data = json.loads(path.read_text(encoding="utf-8"))
    data["entries"][0]["label"] = 1 - data["entries"][0]["label"]
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(DataError, match="edited"):
        Manifest.read(path)
    with pytest.raises(DataError, match="version"):
        Manifest.from_json({**data, "version": 9})


def test_index_takes_relative_absolute_and_decomposed_paths(tmp_path):
    mvtec(tmp_path)
    write_image(tmp_path / "train/good" / unicodedata.normalize("NFD", "é.png"))
    manifest = build_manifest(tmp_path)
    for position, entry in enumerate(manifest.entries):
        assert manifest.index(entry.path) == position
        assert manifest.index(manifest.absolute(entry)) == position
        assert manifest.index(unicodedata.normalize("NFC", entry.path)) == position
    with pytest.raises(DataError, match=r"Did you mean 'train/good/001\.png'"):
        manifest.index("train/god/001.png")


@pytest.mark.row("3.6")
def test_without_normal_test_dir_a_fifth_of_the_good_images_is_tested(tmp_path, caplog):
    mvtec(tmp_path, train=20)
    with caplog.at_level(logging.INFO):
        manifest = build_manifest(tmp_path, normal_dir="train/good", abnormal_dir="test/crack")
    assert manifest.counts() == {
        "train": {"good": 16},
        "validation": {"good": 2, "crack": 2},
        "test": {"good": 2, "crack": 2},
    }
    assert manifest.protocol.test_split_ratio == 0.2
    assert "20% of the training folder" in manifest.protocol.test_normal_from
    assert "4 of 20 good images" in caplog.text
    none = build_manifest(tmp_path, normal_dir="train/good", abnormal_dir="test/crack", test_split_ratio=0)
    assert none.counts()["train"] == {"good": 20}
    assert any("one label" in warning for warning in none.warnings)


def test_good_images_only(tmp_path):
    for i in range(20):
        write_image(tmp_path / f"good/{i}.png")
    manifest = build_manifest(tmp_path)
    assert manifest.layout == "flat"
    assert manifest.counts() == {"train": {"good": 16}, "validation": {"good": 4}, "test": {}}
    assert manifest.protocol.val_split_mode == "from_train"
    assert manifest.protocol.val_split_ratio == 0.2
    assert not manifest.has_masks
    for i in range(5):
        write_image(tmp_path / f"more/{i}.png")
    tested = build_manifest(tmp_path, normal_dir="good", normal_test_dir="more")
    assert tested.counts() == {"train": {"good": 16}, "validation": {"good": 4}, "test": {"good": 5}}
    assert build_manifest(tmp_path, val_split_ratio=0).counts()["train"] == {"good": 20}
    with pytest.raises(DataError, match="needs test images"):
        build_manifest(tmp_path, normal_dir="good", val_split_mode="same_as_test")


def test_validation_modes(tmp_path):
    mvtec(tmp_path)
    same = build_manifest(tmp_path, val_split_mode="same_as_test")
    assert same.protocol.validation_is_test
    assert "oracle" in same.protocol.validation_from
    assert same.split("validation") == same.split("test")
    assert len(same.split("test")) == 13
    assert Counter(e.split for e in same.entries) == {"train": 10, "test": 13}
    train = build_manifest(tmp_path, val_split_mode="from_train", val_split_ratio=0.3)
    assert train.counts()["validation"] == {"good": 3}
    assert len(train.split("test")) == 13
    none = build_manifest(tmp_path, val_split_mode="none")
    assert (len(none.split("validation")), len(none.split("test"))) == (0, 13)
    zero = build_manifest(tmp_path, val_split_ratio=0)
    assert (len(zero.split("validation")), len(zero.split("test"))) == (0, 13)
    with pytest.raises(DataError, match="from_dir"):
        build_manifest(tmp_path, val_split_mode="from_dir")
    with pytest.raises(DataError, match="Unknown split"):
        none.split("val")


def test_a_validation_folder_is_used_by_default(tmp_path, caplog):
    mvtec(tmp_path)
    for i in range(3):
        write_image(tmp_path / f"val/good/{i}.png")
    write_image(tmp_path / "val/crack/v.png")
    write_mask(tmp_path / "ground_truth/crack/v_mask.png")
    with caplog.at_level(logging.INFO):
        manifest = build_manifest(tmp_path)
    assert manifest.counts()["validation"] == {"good": 3, "crack": 1}
    assert len(manifest.split("test")) == 13
    assert manifest.protocol.val_split_mode == "from_dir"
    assert manifest.warnings == ()
    assert "their own folders" in caplog.text
    named = build_manifest(
        tmp_path,
        mask_dir="ground_truth",
        normal_val_dir="val/good",
        abnormal_val_dir="val/crack",
        val_mask_dir="ground_truth/crack",
        **PARTS,
    )
    assert named.hash == manifest.hash
    unused = build_manifest(tmp_path, val_split_mode="none")
    assert any("not used" in warning for warning in unused.warnings)


@pytest.mark.row("3.6")
def test_no_test_set_on_request(tmp_path):
    manifest = build_manifest(mvtec(tmp_path), test_split_mode="none")
    assert manifest.counts() == {"train": {"good": 8}, "validation": {"good": 2}, "test": {}}
    assert any("not used" in warning for warning in manifest.warnings)


def test_training_is_never_left_empty(tmp_path):
    write_image(tmp_path / "good/a.png")
    write_image(tmp_path / "bad/a.png")
    manifest = build_manifest(tmp_path)
    assert manifest.counts()["train"] == {"good": 1}
    (tmp_path / "good/a.png").unlink()
    with pytest.raises(DataError, match=r"normal_dir 'good' has no file that ends in \.png"):
        build_manifest(tmp_path)


def test_root_may_be_left_out(tmp_path, monkeypatch):
    mvtec(tmp_path / "data")
    absolute = {
        "normal_dir": tmp_path / "data/train/good",
        "abnormal_dir": [tmp_path / "data/test/crack", str(tmp_path / "data/test/hole")],
        "normal_test_dir": tmp_path / "data/test/good",
    }
    manifest = build_manifest(None, **absolute)
    assert manifest.root == tmp_path / "data"
    assert manifest.hash == build_manifest(tmp_path / "data", **PARTS).hash
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path))
    assert build_manifest("data", **PARTS).hash == manifest.hash


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"abnormal_dir": "test/crack"}, "without normal_dir"),
        ({"normal_dir": "train/good", "mask_dir": "ground_truth"}, "without abnormal_dir"),
        ({"on_duplicate": "ignore"}, "on_duplicate"),
        ({"val_split_mode": "synthetic"}, "synthetic"),
    ],
)
def test_options_are_refused(tmp_path, options, words):
    with pytest.raises(OptionError, match=words):
        build_manifest(mvtec(tmp_path, train=2, good=1), **options)


def test_no_torch_is_imported(tmp_path):
    mvtec(tmp_path)
    code = (
        "import sys; from defectlab.data.manifest.manifest import build_manifest; build_manifest(sys.argv[1]); "
        "from defectlab.data.manifest.check import check; assert check(sys.argv[1]).ok; "
        "print([m for m in ('torch', 'anomalib', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_older_manifests_have_no_rules(tmp_path):
    manifest = build_manifest(mvtec(tmp_path))
    data = manifest.to_json()
    data["protocol"] = {k: v for k, v in data["protocol"].items() if k not in ("task", "missing_masks")}
    assert Manifest.from_json(data) == replace(manifest)
