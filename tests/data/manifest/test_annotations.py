"""The casting-well layout: labels from a text file, and good images taken out of training to validate."""

from pathlib import Path

import pytest
from helpers.datasets import mvtec, write_image

from defectlab.data.folder import Folder
from defectlab.data.manifest.layouts import detect
from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab.utils.errors import DataError, OptionError


def well_set(root: Path, lines: str | None = None, *, train: int = 10, spills: str = "proliv") -> Path:
    for number in range(train):
        write_image(root / f"train/{number}.png", size=(8 + number, 6))
    for number in range(3):
        write_image(root / spills / f"{number}.png")
    for name in ("a", "b b", "c"):
        write_image(root / f"test/imgs/{name}.png")
    text = "a.png 0\nb b.png 1\nc.png 0\n" if lines is None else lines
    (root / "test/test_annotation.txt").write_text(text, encoding="utf-8")
    return root


def paths(manifest: Manifest, split: str, label: int) -> list[str]:
    return [entry.path for entry in manifest.split(split) if entry.label == label]


def test_it_is_recognised_and_split(tmp_path: Path):
    manifest = build_manifest(well_set(tmp_path))
    assert manifest.layout == "wells"
    assert paths(manifest, "test", 1) == ["test/imgs/b b.png"]
    assert paths(manifest, "test", 0) == ["test/imgs/a.png", "test/imgs/c.png"]
    assert {entry.defect for entry in manifest.entries if entry.label} == {"proliv"}
    assert paths(manifest, "validation", 1) == [f"proliv/{number}.png" for number in range(3)]
    good = paths(manifest, "validation", 0)
    assert len(good) == 2  # a fifth of ten
    assert not set(good) & set(paths(manifest, "train", 0))
    assert manifest.protocol.n_val_good == 2
    assert "2 good training images" in manifest.protocol.validation_from
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_photographs_may_be_jpegs_as_the_references_are(tmp_path: Path):
    for folder, names in (("train", "abcde"), ("proliv", "xy"), ("test/imgs", "pq")):
        for name in names:
            write_image(tmp_path / folder / f"{name}.jpg", size=(9, 7))
    (tmp_path / "test/test_annotation.txt").write_text("p.jpg 0\nq.jpg 1\n", encoding="utf-8")
    manifest = build_manifest(tmp_path)
    assert manifest.layout == "wells"
    assert paths(manifest, "test", 1) == ["test/imgs/q.jpg"]
    assert paths(manifest, "validation", 1) == ["proliv/x.jpg", "proliv/y.jpg"]
    assert len(paths(manifest, "train", 0)) == 4
    data = Folder(root=tmp_path, num_workers=0, eval_batch_size=2)
    data.setup()
    batch = next(iter(data.test_dataloader()))
    assert batch.gt_label.tolist() == [0, 1]


def test_blank_lines_tabs_of_windows_and_a_byte_order_mark_are_read(tmp_path: Path):
    well_set(tmp_path)
    text = b"\xef\xbb\xbfa.png 0\r\n\r\nb b.png 1\r\n c.png  0 \r\n"
    (tmp_path / "test/test_annotation.txt").write_bytes(text)
    assert paths(build_manifest(tmp_path), "test", 1) == ["test/imgs/b b.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a.png 0\nc.png 0\n", r"b b\.png: no line in test/test_annotation\.txt"),
        ("a.png 0\nb b.png 1\na.png 0\nc.png 0\n", r"a\.png: lines 1 and 3 of test/test_annotation\.txt"),
        ("a.png 0\nb b.png 1\nc.png 2\n", r"line 3: 'c\.png 2'"),
        ("a.png 0\nb b.png 1\nc.png\n", r"line 3: 'c\.png'"),
        ("", r"Images without an annotation.*\(3\)"),
    ],
)
def test_what_is_wrong_with_the_annotations_is_named(tmp_path: Path, lines: str, message: str):
    with pytest.raises(DataError, match=message):
        build_manifest(well_set(tmp_path, lines))


def test_an_annotation_of_no_image_is_warned_of(tmp_path: Path):
    manifest = build_manifest(well_set(tmp_path, "a.png 0\nb b.png 1\nc.png 0\nd.png 1\n"))
    assert any("test_annotation.txt line 4: d.png" in warning for warning in manifest.warnings)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    well_set(tmp_path)
    (tmp_path / "test/test_annotation.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="UTF-8"):
        build_manifest(tmp_path)


def test_other_folders_are_named_and_not_used(tmp_path: Path):
    layout = detect(well_set(tmp_path, spills="defects"))
    assert layout.abnormal_val_dirs == ("defects",)
    write_image(tmp_path / "notes/x.png")
    assert detect(tmp_path).notes == ("notes is not used",)


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
        assert set(paths(more, "validation", 0)) > set(paths(plain, "validation", 0))
        assert len(paths(more, "train", 0)) == len(paths(plain, "train", 0)) - 2

    def test_the_seed_decides_which(self, tmp_path: Path):
        root = well_set(tmp_path, train=30)
        one, again, other = (build_manifest(root, seed=seed) for seed in (1, 1, 2))
        assert one.hash == again.hash != other.hash

    def test_it_is_a_whole_number(self, tmp_path: Path):
        with pytest.raises(OptionError, match="n_val_good"):
            build_manifest(well_set(tmp_path), n_val_good=-1)
