"""Which images are trained on, validate and are tested."""

from pathlib import Path

import pytest
from helpers.datasets import mvtec, paths_of, well_set

from defectlab.data.manifest.manifest import build_manifest
from defectlab.utils.errors import OptionError


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
