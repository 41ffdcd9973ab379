"""The sample `wells`: the casting-well layout exactly, many sizes, pixels that never change."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defectlab.data.manifest.manifest import build_manifest
from defectlab.data.samples import make_sample, wells
from defectlab.data.samples.random_stream import RandomStream
from defectlab_runtime.errors import OptionError

COUNTS = {"train": 20, "proliv": 6, "test": 12}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample("wells", tmp_path_factory.mktemp("samples") / "wells", **COUNTS)


def pixels(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def test_the_layout_is_that_of_the_casting_wells(root: Path):
    found = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir())
    assert found == ["proliv", "test", "test/imgs", "train"]
    assert {folder: len(pixels(root / folder)) for folder in ("train", "proliv", "test/imgs")} == {
        "train": 20, "proliv": 6, "test/imgs": 12,
    }  # fmt: skip
    lines = (root / "test/test_annotation.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in lines] == [f"{index:04d}.png" for index in range(12)]
    assert sorted(line.split()[1] for line in lines) == ["0"] * 9 + ["1"] * 3


def test_the_default_counts_are_recorded_with_its_origin(root: Path):
    record = json.loads((root / "sample.json").read_text(encoding="utf-8"))
    assert record["options"] == COUNTS
    assert record["counts"] == {"train": 20, "proliv": 6, "test/imgs": 12}
    assert "test/test_annotation.txt" in record["files"]
    assert wells.labels(42, 400).count(1) == 100


def test_the_pixels_are_the_same_everywhere(root: Path):
    record = json.loads((root / "sample.json").read_text(encoding="utf-8"))
    assert record["pixels_sha256"] == ("0538ccee1b86a6c71134c227bad70111d217acb58a700d1687e511389cad8751")


def test_sizes_differ_within_the_ranges_of_the_reference():
    for folder, (widths, heights) in wells.SIZES.items():
        sizes = set()
        for index in range(40):
            stream = RandomStream(42, f"wells/{folder}/{index}")
            height, width = wells._between(stream, heights), wells._between(stream, widths)
            assert heights[0] <= height <= heights[1]
            assert widths[0] <= width <= widths[1]
            sizes.add((height, width))
        assert len(sizes) > 10
    assert wells.SIZES["test/imgs"] == ((39, 72), (23, 40))


def test_a_spill_is_outside_the_well_and_nothing_else_changes():
    for number in range(20):
        good, bad = (wells.draw(RandomStream(1, f"{number}"), (30, 50), False) for _ in range(2))
        assert np.array_equal(good, bad)
        spilled = wells.draw(RandomStream(1, f"{number}"), (30, 50), True)
        centre = (slice(13, 17), slice(22, 28))
        # the same well under other ripples and noise; far from the well only a spill can be brighter by this much
        assert np.abs(good[centre].astype(int) - spilled[centre]).mean() < 40
        assert not np.array_equal(good, spilled)


def test_more_images_leave_the_first_ones_as_they_are(root: Path, tmp_path: Path):
    larger = make_sample("wells", tmp_path / "larger", **COUNTS | {"train": 22})
    first = [path.read_bytes() for path in sorted((root / "train").iterdir())]
    assert [path.read_bytes() for path in sorted((larger / "train").iterdir())][:20] == first


@pytest.mark.parametrize("counts", [{"train": 9}, {"proliv": 0}, {"test": 3}, {"train": True}])
def test_counts_that_make_no_dataset_are_refused(tmp_path: Path, counts: dict[str, int]):
    with pytest.raises(OptionError, match=next(iter(counts))):
        make_sample("wells", tmp_path / "wells", **counts)


def test_it_is_read_without_any_option(root: Path):
    manifest = build_manifest(root)
    assert manifest.layout == "wells"
    assert manifest.counts() == {
        "train": {"good": 16},
        "validation": {"good": 4, "proliv": 6},
        "test": {"good": 9, "proliv": 3},
    }
