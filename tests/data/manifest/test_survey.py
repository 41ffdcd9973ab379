"""Equal files: an error across splits and labels, a warning within one split, never parted by the seed."""

import pytest
from helpers.datasets import mvtec, write_image

from defectlab.data.manifest.manifest import build_manifest
from defectlab.utils.errors import DataError


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
