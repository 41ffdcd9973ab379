"""Layouts found by themselves, and what is said where none is."""

from pathlib import Path

import pytest
from helpers.datasets import paths_of, well_set, write_image

from defectlab.data.manifest.layouts import Layout, detect, named
from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab.data.manifest.options import DataOptions
from defectlab_runtime.errors import DataError


def tree(root, *folders):
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    return root


@pytest.mark.row("3.3")
def test_mvtec_with_validation(tmp_path):
    tree(tmp_path, "train/good", "test/good", "test/hole", "test/crack", "ground_truth/crack", "ground_truth/hole")
    tree(tmp_path, "val/good", "val/crack")
    assert detect(tmp_path) == Layout(
        name="mvtec",
        normal_dirs=("train/good",),
        normal_test_dirs=("test/good",),
        abnormal_dirs=("test/crack", "test/hole"),
        mask_dirs=("ground_truth/crack", "ground_truth/hole"),
        normal_val_dirs=("val/good",),
        abnormal_val_dirs=("val/crack",),
        val_mask_dirs=("ground_truth/crack",),
    )


@pytest.mark.row("4.1")
def test_mvtec_without_masks_or_tests(tmp_path):
    tree(tmp_path, "train/good", "test/good", "test/crack")
    assert detect(tmp_path).mask_dirs is None
    alone = detect(tree(tmp_path / "other", "train/good"))
    assert (alone.name, alone.abnormal_dirs, alone.normal_test_dirs) == ("mvtec", (), ())


@pytest.mark.parametrize("masks", ["ground_truth/bad", "ground_truth", "masks"])
def test_good_bad(tmp_path, masks):
    tree(tmp_path, "train/good", "test/good", "test/bad", masks)
    found = detect(tmp_path)
    assert found.name == "good_bad"
    assert found.abnormal_dirs == ("test/bad",)
    assert found.mask_dirs == (masks,)


@pytest.mark.parametrize(
    ("good", "bad", "masks"),
    [("normal_dir", "abnormal_dir", "mask_dir"), ("good", "bad", "masks"), ("OK", "NOK", "ground_truth")],
)
def test_flat_and_its_synonyms(tmp_path, good, bad, masks):
    tree(tmp_path, good, bad, masks)
    assert detect(tmp_path) == Layout("flat", (good,), (), (bad,), (masks,))


def test_two_synonyms_are_ambiguous(tmp_path):
    with pytest.raises(DataError, match="mean the same"):
        detect(tree(tmp_path, "good", "normal", "bad"))


def test_unlabelled_folders_are_tested_and_do_not_validate(tmp_path):
    found = detect(tree(tmp_path, "train/good", "test/good", "test/unknown", "test/crack", "val/unknown"))
    assert found.abnormal_dirs == ("test/crack",)
    assert found.unknown_dirs == ("test/unknown",)
    assert found.unused == (("val/unknown", "its images have no label to validate by"),)


@pytest.mark.parametrize("name", ["normals", "gut", "良品", "Хорошие", "passed", "io", "defect_free"])
def test_a_kind_of_defect_that_sounds_good_is_asked_about(tmp_path, name):
    tree(tmp_path, "train/good", f"test/{name}", "test/crack")
    with pytest.raises(DataError) as caught:
        detect(tmp_path)
    good, kind = (line.strip() for line in str(caught.value).splitlines() if line.strip().startswith("Folder("))
    assert f"'test/{name}' would be a kind of defect" in str(caught.value)
    start = f"Folder(root='{tmp_path}', normal_dir='train/good', "
    assert good == f"{start}normal_test_dir='test/{name}', abnormal_dir='test/crack')"
    assert kind == f"{start}abnormal_dir={sorted(['test/crack', 'test/' + name])})"
    assert "--data.normal_test_dir" in str(caught.value)
    tree(tmp_path, "test/good")  # beside a folder of good images too
    with pytest.raises(DataError, match="would be a kind of defect"):
        detect(tmp_path)


def test_spaces_around_a_name_do_not_count(tmp_path):
    found = detect(tree(tmp_path, "train/good", "test/OK ", "test/crack"))
    assert (found.normal_test_dirs, found.abnormal_dirs) == (("test/OK ",), ("test/crack",))


@pytest.mark.parametrize(
    ("good", "bad"),
    [("OK", "NG"), ("pass", "FAIL"), ("normal", "abnormal"), ("good", "defective"), ("良", "不良"), ("годен", "брак")],
)
def test_pairs_of_names(tmp_path, good, bad):
    found = detect(tree(tmp_path, good, bad))
    assert (found.normal_dirs, found.abnormal_dirs) == ((good,), (bad,))


def test_a_flat_folder_of_good_images_alone(tmp_path):
    write_image(tmp_path / "plates/a.png")
    (tmp_path / "plates/empty").mkdir()
    assert detect(tmp_path / "plates") == Layout("good_only", (".",))
    write_image(tmp_path / "NG/a.png")
    with pytest.raises(DataError, match="No known layout"):
        detect(tmp_path / "NG")


def test_folders_of_drives_are_no_kinds_of_defect(tmp_path):
    found = detect(tree(tmp_path, "train/good", "test/good", "test/crack", "test/@eaDir", "test/.thumbnails"))
    assert found.abnormal_dirs == ("test/crack",)


@pytest.mark.row("3.3")
def test_no_layout_says_what_is_there(tmp_path):
    tree(tmp_path, "pictures", "more")
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    (tmp_path / "MT_free").mkdir()
    (tmp_path / "MT_free" / "a.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        detect(tmp_path)
    text = str(caught.value)
    assert "pictures (1 image)" in text
    for word in ("mvtec", "good_bad", "flat", "normal_dir", "normal_dir='MT_free', abnormal_dir='pictures')"):
        assert word in text


def test_a_layout_one_level_down_is_offered(tmp_path):
    with pytest.raises(DataError, match=r"did you mean root=.*bottle"):
        detect(tree(tmp_path, "bottle/train/good").resolve())


def test_no_such_root_names_the_closest(tmp_path):
    tree(tmp_path, "bottle")
    with pytest.raises(DataError, match="Did you mean 'bottle'"):
        detect(tmp_path / "botle")


def test_named_folders_in_and_outside_the_root(tmp_path):
    tree(tmp_path, "a/good", "b/bad")
    root, found = named(
        DataOptions(tmp_path / "a", normal_dir=tmp_path / "a/good", abnormal_dir=[str(tmp_path / "b/bad")])
    )
    assert root == tmp_path / "a"
    assert found.normal_dirs == ("good",)
    assert found.abnormal_dirs == ((tmp_path / "b/bad").as_posix(),)
    root, found = named(DataOptions(None, normal_dir=tmp_path / "a/good", abnormal_dir=tmp_path / "b/bad"))
    assert root == tmp_path
    assert found.normal_dirs + found.abnormal_dirs == ("a/good", "b/bad")


def test_it_is_recognised_and_split(tmp_path: Path):
    manifest = build_manifest(well_set(tmp_path))
    assert manifest.layout == "wells"
    assert paths_of(manifest, "test", 1) == ["test/imgs/b b.png"]
    assert paths_of(manifest, "test", 0) == ["test/imgs/a.png", "test/imgs/c.png"]
    assert {entry.defect for entry in manifest.entries if entry.label} == {"proliv"}
    assert paths_of(manifest, "validation", 1) == [f"proliv/{number}.png" for number in range(3)]
    good = paths_of(manifest, "validation", 0)
    assert len(good) == 2  # a fifth of ten
    assert not set(good) & set(paths_of(manifest, "train", 0))
    assert manifest.protocol.n_val_good == 2
    assert "2 good training images" in manifest.protocol.validation_from
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_other_folders_are_named_and_not_used(tmp_path: Path):
    layout = detect(well_set(tmp_path, spills="defects"))
    assert layout.abnormal_val_dirs == ("defects",)
    write_image(tmp_path / "notes/x.png")
    assert "notes (1 image)" in "\n".join(build_manifest(tmp_path).warnings)
