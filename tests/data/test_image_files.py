"""Finding image files: order, hidden files, endings, links."""

import unicodedata

from defectlab.data.image_files import list_images


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
