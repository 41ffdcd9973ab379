"""Finding image files: order, hidden files, endings, links."""

import errno
import os
import unicodedata

import pytest

from defectlab_runtime.errors import DataError
from defectlab_runtime.image_files import list_images


def test_list_is_recursive_sorted_by_composed_name_and_skips_hidden(tmp_path):
    decomposed = unicodedata.normalize("NFD", "é.png")
    for name in ("b/z.png", "a.JPG", "f.png", ".hidden.png", ".cache/x.png", "note.txt", decomposed):
        saved_path = tmp_path / name
        saved_path.parent.mkdir(exist_ok=True)
        saved_path.write_bytes(b"x")
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a.JPG", "b/z.png", "f.png", decomposed]  # raw NFD would sort before f
    assert [p.name for p in list_images(tmp_path, ["jpg"])] == ["a.JPG"]


def test_a_loop_of_links_ends(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"x")
    (tmp_path / "real" / "again").symlink_to(tmp_path / "real", target_is_directory=True)
    assert len(list_images(tmp_path)) == 1


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path, monkeypatch):
    for name in ("a.png", "closed/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scan = os.scandir

    def scandir(folder):  # root may list all, so that the system's answer is replaced
        if str(folder).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"closed cannot be listed \(Permission denied\).*chmod"):
        list_images(tmp_path)
    assert list_images(tmp_path / "absent") == []
