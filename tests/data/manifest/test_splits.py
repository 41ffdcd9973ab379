"""Which images are trained on, validate and are tested."""

from pathlib import Path

import pytest
from helpers.datasets import mvtec, paths_of, well_set, write_image

from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab_runtime.errors import OptionError


class TestGoodValidationImages:
    def test_a_number_is_taken_up_to_a_fifth(self, tmp_path: Path):
        root = well_set(tmp_path, train=30)
        counts = {n: build_manifest(root, n_val_good=n).counts() for n in (1, 4, 6, 100)}
        assert {n: found["validation"]["good"] for n, found in counts.items()} == {1: 1, 4: 4, 6: 6, 100: 6}
        assert all(found["validation"]["good"] + found["train"]["good"] == 30 for found in counts.values())

    def test_none_are_taken_on_request(self, tmp_path: Path):
        assert build_manifest(well_set(tmp_path), n_val_good=0).counts()["validation"] == {"proliv": 3}

    def test_any_layout_gives_them_when_asked(self, tmp_path: Path):
        plain = build_manifest(mvtec(tmp_path))
        more = build_manifest(tmp_path, n_val_good=2)
        assert plain.protocol.n_val_good is None
        assert set(paths_of(more, "validation", 0)) > set(paths_of(plain, "validation", 0))
        assert len(paths_of(more, "train", 0)) == len(paths_of(plain, "train", 0)) - 2

    def test_the_seed_decides_which(self, tmp_path: Path):
        root = well_set(tmp_path, train=30)
        one, again, other = (build_manifest(root, seed=seed) for seed in (1, 1, 2))
        assert one.hash == again.hash != other.hash

    def test_it_is_a_whole_number(self, tmp_path: Path):
        with pytest.raises(OptionError, match="n_val_good"):
            build_manifest(well_set(tmp_path), n_val_good=-1)


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
