"""Facts of image files: damage is found wherever it is, and a file is read once until it changes."""

import hashlib
import os

import numpy as np
import pytest
from PIL import Image, ImageFile

from defectlab.data import image_facts
from defectlab.data.image_facts import probe, probe_all
from defectlab_runtime.errors import DataError
from defectlab_runtime.images import read_image
from tests.fuzz.images import tiff_of_pages

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def saved(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_truncated_files_are_found_wherever_they_end(tmp_path, suffix):
    whole = saved(tmp_path / f"whole{suffix}", np.tile(COLOURS, (8, 8, 1))).read_bytes()
    for left in (len(whole) - 5, len(whole) * 3 // 4, len(whole) // 2, 30):
        path = tmp_path / f"cut{left}{suffix}"
        path.write_bytes(whole[:left])
        facts = probe(path)
        assert facts.problem, f"{left} of {len(whole)} bytes passed"
        assert facts.sha256 == hashlib.sha256(whole[:left]).hexdigest()
    with pytest.raises(DataError, match=r"cut30.*Replace or remove"):
        read_image(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_empty_foreign_and_absent_files(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    empty, text, absent = probe_all([tmp_path / name for name in ("empty.png", "text.png", "absent.png")])
    assert "0 bytes" in str(empty.problem)
    assert "not an image" in str(text.problem)
    assert "no such file" in str(absent.problem)


def test_probe_reads_once_until_the_file_changes(tmp_path):
    path = saved(tmp_path / "a.png", COLOURS)
    first = probe(path)
    assert first.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (first.width, first.height, first.mode) == (9, 6, "RGB")
    hits = image_facts._probe.cache_info().hits
    assert probe(path) == first
    assert image_facts._probe.cache_info().hits == hits + 1
    saved(path, COLOURS[:3])
    os.utime(path, ns=(1, 1))
    assert probe(path).height == 3


def test_pages_are_counted_to_a_limit_and_a_loop_of_pages_ends(tmp_path, monkeypatch):
    """Pillow looks for each page among all before it: 100,000 empty pages take minutes."""
    monkeypatch.setattr(image_facts, "MAX_PAGES", 20)
    for name, pages, back_to, counted in (("few", 3, None, 3), ("many", 50, None, 20), ("loop", 3, 1, 3)):
        path = tmp_path / f"{name}.tif"
        path.write_bytes(tiff_of_pages(pages, back_to))
        assert probe(path).problem is None
        assert probe(path).pages == counted
