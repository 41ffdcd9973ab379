"""Pairing of masks by name, folders that share masks, and what a mask's size may be."""

import pytest
from helpers.datasets import mvtec, write_image, write_mask

from defectlab.data.image_facts import ImageFacts
from defectlab.data.manifest.manifest import build_manifest
from defectlab.data.manifest.masks import MASK_SUFFIXES, compare_sizes, mask_folders, pair_masks
from defectlab_runtime.errors import DataError


def facts(width, height, raw=None):
    raw_width, raw_height = raw or (width, height)
    return ImageFacts(width, height, raw_width, raw_height, "L", "")


def names(images, masks):
    pairing = pair_masks(images, masks)
    return {images[i]: masks[m] for i, m in pairing.masks.items()}, [images[i] for i in pairing.missing]


@pytest.mark.parametrize("suffix", ["", *MASK_SUFFIXES])
def test_stem_with_each_suffix(suffix):
    assert names(["sub/a.b.jpg"], [f"sub/a.b{suffix}.png"]) == ({"sub/a.b.jpg": f"sub/a.b{suffix}.png"}, [])


def test_position_never_counts():
    pairs, missing = names(["1.png", "10.png", "2.png"], ["0.png", "10_mask.png", "2_mask.png"])
    assert pairs == {"10.png": "10_mask.png", "2.png": "2_mask.png"}
    assert missing == ["1.png"]  # anomalib's substring test would take 10_mask for 1


def test_subfolders_are_kept():
    pairs, missing = names(["a/1.png", "b/1.png"], ["b/1.png"])
    assert pairs == {"b/1.png": "b/1.png"}
    assert missing == ["a/1.png"]


def test_composed_and_decomposed_names_are_one():
    assert names(["e\u0301.png"], ["\u00e9_mask.png"])[1] == []


def test_an_exact_stem_is_not_anothers_suffix():
    pairs, _ = names(["a.png", "a_gt.png"], ["a.png", "a_gt.png"])
    assert pairs == {"a.png": "a.png", "a_gt.png": "a_gt.png"}


def test_doubled_stems_and_doubled_masks_are_told_apart():
    pairing = pair_masks(["a.png", "a.jpg", "b.png"], ["a.png", "b.png", "b_mask.png"])
    assert pairing.masks == {}
    assert len(pairing.ambiguous) == 2
    assert "a.png, a.jpg" in pairing.ambiguous[0]
    assert "b.png, b_mask.png" in pairing.ambiguous[1]


def test_folders_pair_one_to_one_or_by_subfolder(tmp_path):
    for name in ("masks/crack", "gt/x", "gt/y"):
        (tmp_path / name).mkdir(parents=True)
    crack, hole = tmp_path / "test/crack", tmp_path / "test/hole"
    masks = tmp_path / "masks"
    assert mask_folders([crack, hole], [masks]) == ([masks / "crack", masks], None)
    x, y = tmp_path / "gt/x", tmp_path / "gt/y"
    assert mask_folders([crack, hole], [x, y]) == ([x, y], None)
    with pytest.raises(DataError, match="2 folders for 3 abnormal_dir"):
        mask_folders([crack, hole, x], [x, y])


def test_swapped_folder_names_are_put_right_and_said(tmp_path):
    abnormal = [tmp_path / "test/crack", tmp_path / "test/hole"]
    masks = [tmp_path / "gt/hole", tmp_path / "gt/crack"]
    folders, note = mask_folders(abnormal, masks)
    assert folders == masks[::-1]
    assert "another order" in str(note)


@pytest.mark.parametrize(
    ("image", "mask", "verdict"),
    [
        (facts(640, 480), facts(640, 480), "same"),
        (facts(640, 480), facts(320, 240), "resize"),
        (facts(900, 901), facts(450, 450), "resize"),
        (facts(100, 75), facts(1000, 754), "resize"),
        (facts(640, 480), facts(640, 470), "wrong"),
        (facts(640, 480), facts(480, 640), "wrong"),
        (facts(640, 480), facts(1, 1), "wrong"),
        (facts(640, 480), facts(3, 3), "wrong"),
        (facts(640, 480), facts(8, 6), "resize"),
        (facts(3, 3), facts(6, 6), "resize"),
        (facts(1, 1), facts(1, 1), "same"),
    ],
)
def test_size_verdicts(image, mask, verdict):
    assert compare_sizes(image, mask)[0] == verdict


def test_a_mask_of_the_unrotated_image_gets_a_hint():
    verdict, words = compare_sizes(facts(480, 640, raw=(640, 480)), facts(320, 240))
    assert verdict == "wrong"
    assert "unrotated" in words
    assert "unrotated" not in compare_sizes(facts(480, 640, raw=(640, 480)), facts(100, 100))[1]


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
