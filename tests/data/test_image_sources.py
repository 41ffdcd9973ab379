"""Which image files a file, a folder, a glob or a list selects."""

from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import mvtec, write_image, write_mask
from PIL import Image

from defectlab.data.image_sources import find_images, find_readable_images
from defectlab_runtime.errors import DataError


def found(folder: Path, source: object = None) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder if source is None else source)]


def test_masks_below_a_folder_are_left_out_and_said(tmp_path, caplog):
    mvtec(tmp_path, train=1, good=1, kinds={"crack": 1})
    for name in ("masks/0.png", "Mask/0.png", "gt/deep/0.png", "test/crack/000_mask.png", "beside/a.png"):
        write_mask(tmp_path / name)
    write_image(tmp_path / "beside/a.jpg")
    assert found(tmp_path) == ["beside/a.jpg", "test/crack/000.png", "test/good/000.png", "train/good/000.png"]
    assert "6 of 10 pictures below" in caplog.text
    assert found(tmp_path, [tmp_path / "masks"]) == ["masks/0.png"], "asked for by name"
    assert found(tmp_path, f"{tmp_path}/beside/*.png") == ["beside/a.png"]


def test_photographs_that_are_called_as_masks_are_scored(tmp_path, caplog):
    names = ["0.png", "0_label.png", "1.png", "1_label.png", "masks/on_faces.png"]
    for name in names:
        write_image(tmp_path / name, size=(40, 40))
    deep = np.arange(300, 1900, dtype=np.uint16).reshape(40, 40)
    Image.fromarray(deep).save(tmp_path / "1_label.png")
    assert found(tmp_path) == names
    assert not caplog.records
    write_mask(tmp_path / "0_label.png")
    assert found(tmp_path) == [name for name in names if name != "0_label.png"]
    assert "1 of 5 pictures below" in caplog.text


@pytest.mark.parametrize("source", ["", " ", [], [""]])
def test_an_empty_source_is_refused(own_project, source):
    write_image(own_project / "a.png")
    with pytest.raises(DataError, match="empty"):
        find_images(source)
    assert found(own_project, ".") == ["a.png"]


def test_brackets_in_a_folders_name_are_no_pattern(tmp_path):
    for name in ("lot [3]/a.png", "lot [3]/b1.png", "lot [3]/deep/b2.png", "lot 3/c.png"):
        write_image(tmp_path / name)
    assert found(tmp_path, f"{tmp_path}/lot [3]/*.png") == ["lot [3]/a.png", "lot [3]/b1.png"]
    assert found(tmp_path, f"{tmp_path}/lot [3]/**/b[12].png") == ["lot [3]/b1.png", "lot [3]/deep/b2.png"]
    assert found(tmp_path, f"{tmp_path}/lot [0-9]/*.png") == ["lot 3/c.png"]


def test_pictures_of_a_kind_that_is_not_read_are_named(tmp_path, caplog):
    write_image(tmp_path / "a.png")
    (tmp_path / "b.heic").write_bytes(b"")
    assert found(tmp_path) == ["a.png"]
    assert "not scored: 1 .heic such as b.heic" in caplog.text


def test_what_is_no_image_and_what_is_not_there(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for source, words in ((tmp_path / "notes.txt", "no image file"), (tmp_path / "x", "no file or folder")):
        with pytest.raises(DataError, match=words):
            find_images(source)
    with pytest.raises(DataError, match="No images"):
        find_images(tmp_path)


def test_unreadable_files_are_left_out_and_named(tmp_path, caplog):
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"none")
    assert find_readable_images(tmp_path) == [tmp_path / "a.png"]
    assert "1 images cannot be read and are left out:\n  b.png: not an image" in caplog.text
    with pytest.raises(DataError, match=r"None of these images can be read:\n  b\.png"):
        find_readable_images(tmp_path / "b.png")
