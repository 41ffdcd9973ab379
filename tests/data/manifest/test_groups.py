"""Parts with several photographs: splits, thresholds and intervals take them as one."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import write_image, write_mask
from hypothesis import given
from hypothesis import strategies as st

from defectlab.data.manifest.check import check
from defectlab.data.manifest.groups import clusters, group_of
from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab_runtime.errors import DataError, OptionError

PATTERN = r"(.*/part\d+)_"


def parts_folder(root: Path, *, test_good: int = 8, bad: int = 6, train: int = 10, views: int = 3) -> Path:
    """Every part is photographed `views` times; folder and number name it."""
    for folder, count in (("train/good", train), ("test/good", test_good), ("test/crack", bad)):
        for number in range(count):
            for view in range(views):
                write_image(root / folder / f"part{number:02d}_{view}.png")
                if folder == "test/crack":
                    write_mask(root / f"ground_truth/crack/part{number:02d}_{view}_mask.png")
    return root


def splits_of_parts(manifest: Manifest, pattern: str = PATTERN) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for entry in manifest.entries:
        found.setdefault(group_of(entry.path, pattern), set()).add(entry.split)
    return found


@pytest.mark.parametrize(
    ("path", "pattern", "name"),
    [
        ("test/good/017_left.png", r"(\d+)_(left|right)", "017"),
        ("test/good/017_left.png", r"\d+", "017"),
        ("test/good/017_left.png", r"part\d+", "test/good/017_left.png"),
        ("test/good/017_left.png", r"(part\d+)?_left", "test/good/017_left.png"),  # group 1 took no part
        ("test/good/017_left.png", r"x*", "test/good/017_left.png"),  # an empty match names nothing
        ("a/e\u0301_1.png", "a/(\u00e9)_", "\u00e9"),
    ],
)
def test_names_of_parts(path: str, pattern: str, name: str):
    assert group_of(path, pattern) == name


@pytest.mark.parametrize("options", [{}, {"seed": 7}, {"val_split_mode": "from_train"}, {"val_split_ratio": 0.3}])
def test_validation_keeps_parts_whole(tmp_path: Path, options: dict):
    manifest = build_manifest(parts_folder(tmp_path), group=PATTERN, **options)
    assert all(len(splits) == 1 for splits in splits_of_parts(manifest).values())
    plain = build_manifest(tmp_path, **options)
    assert any(len(splits) > 1 for splits in splits_of_parts(plain).values()), "without group parts are cut"
    assert {e.split for e in manifest.entries} == {"train", "validation", "test"}


def test_the_protocol_says_so_and_counts_parts(tmp_path: Path):
    manifest = build_manifest(parts_folder(tmp_path), group=PATTERN)
    protocol = manifest.protocol
    assert protocol.group == PATTERN
    assert protocol.group_counts == {
        "train": {"good": 10, "anomalous": 0},
        "validation": {"good": 4, "anomalous": 3},
        "test": {"good": 4, "anomalous": 3},
    }
    assert protocol.counts["validation"] == {"good": 12, "anomalous": 9}
    assert protocol.validation_from.startswith("a seeded 50% of the parts of the test images")
    assert Manifest.from_json(manifest.to_json()) == manifest
    old = manifest.to_json()
    del old["protocol"]["group"], old["protocol"]["parts"]
    assert Manifest.from_json(old).protocol.group is None
    text = check(tmp_path, group=PATTERN).text
    assert "24 parts" in text
    assert "train 10, validation 7, test 7" in text


def test_good_test_images_from_training_keep_parts_whole(tmp_path: Path):
    parts_folder(tmp_path, test_good=0)
    for view in range(2):  # a part whose defect is seen in one photograph only
        write_image(tmp_path / f"train/good/part90_{view}.png")
    write_image(tmp_path / "test/crack/part90_2.png")
    write_mask(tmp_path / "ground_truth/crack/part90_2_mask.png")
    # by the number alone part 0 of train/good and of test/crack would be one: here only part 90 is in both
    pattern = r"(part90|t.*/part(?!90)\d+)_"
    manifest = build_manifest(tmp_path, group=pattern)
    found = splits_of_parts(manifest, pattern)
    assert all(len(splits) == 1 for splits in found.values())
    assert found["part90"] != {"train"}
    tested = {name for name, splits in found.items() if name.startswith("train/good/") and splits != {"train"}}
    assert len(tested) == 2, "a fifth of the ten other parts"
    assert manifest.protocol.test_normal_from == "a seeded 20% of the parts of the training folder"


def test_a_part_in_two_folders_is_said_with_the_fix(tmp_path: Path):
    parts_folder(tmp_path)
    with pytest.raises(DataError, match=r"The same part in two splits.*let group take in the folder") as raised:
        build_manifest(tmp_path, group=r"(part\d+)_")
    assert "part00" in str(raised.value)
    fix = re.search(r"such as (\S+);", str(raised.value)).group(1)
    assert group_of("test/good/part00_1.png", fix.replace(r"\d", r"part\d")) == "test/good/part00", (
        "the fix names the folder"
    )
    assert build_manifest(tmp_path, group=r"(part\d+)_", on_duplicate="warn").warnings


def test_a_pattern_that_cannot_work_is_an_error(tmp_path: Path):
    parts_folder(tmp_path)
    for pattern in ("(", "", 3):
        with pytest.raises(OptionError, match="regular expression"):
            build_manifest(tmp_path / "absent", group=pattern)
    with pytest.raises(DataError, match=r"found in none of the 72 paths.*test/crack/part00_0\.png"):
        build_manifest(tmp_path, group=r"piece\d+")
    assert not check(tmp_path, group=r"piece\d+").ok


def test_images_without_a_name_are_parts_of_their_own_and_counted(tmp_path: Path):
    parts_folder(tmp_path)
    write_image(tmp_path / "test/good/odd.png")
    manifest = build_manifest(tmp_path, group=PATTERN)
    assert any("is not found in, each a part of its own (1)" in warning for warning in manifest.warnings)
    assert sum(sum(kinds.values()) for kinds in manifest.protocol.group_counts.values()) == 25


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=14))
def test_clusters_are_the_connected_components(pairs: list[tuple[int, int]]):
    paths = [f"{n:02d}.png" for n in range(len(pairs))]
    parts = {path: str(part) for path, (part, _) in zip(paths, pairs, strict=True)}
    contents = {path: str(content) for path, (_, content) in zip(paths, pairs, strict=True)}
    joined = np.array([[a == c or b == d for c, d in pairs] for a, b in pairs])
    for _ in paths:
        joined = joined.astype(int) @ joined.astype(int) > 0
    expected = {tuple(np.array(paths)[row]) for row in joined}
    assert {tuple(cluster) for cluster in clusters(parts, contents)} == expected


def test_without_a_pattern_nothing_changes(tmp_path: Path):
    manifest = build_manifest(parts_folder(tmp_path))
    assert (manifest.protocol.group, manifest.protocol.group_counts) == (None, None)
    single = build_manifest(tmp_path, group=r".+")  # every image a part of its own: other words, the same picks
    assert single.hash == manifest.hash
