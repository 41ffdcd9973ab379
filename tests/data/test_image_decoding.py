"""Limits of what is decoded."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defectlab.data.image_decoding import MAX_PIXELS
from defectlab.data.image_facts import probe
from defectlab.data.images import read_image
from defectlab.utils.errors import DataError

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def saved(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def test_large_pictures_are_no_bombs(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", COLOURS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # 54 pixels would be refused
    assert read_image(path).shape == (6, 9, 3)
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS


@pytest.mark.parametrize("kind", ["EPS", "PDF", "GIF", "ICO"])
def test_only_formats_of_the_list_are_opened_whatever_the_name_says(kind: str, tmp_path: Path):
    """Pillow hands an EPS to Ghostscript."""
    file = tmp_path / "part.png"
    Image.new("RGB", (8, 8)).save(file, kind)
    with pytest.raises(DataError, match="not an image of a kind that is read"):
        read_image(file)
    assert probe(file).problem


def test_a_jpeg_that_claims_the_largest_size_is_refused_by_its_header(tmp_path: Path):
    file = tmp_path / "part.jpg"
    Image.new("RGB", (16, 16)).save(file)
    content = bytearray(file.read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"its header claims (65535 x 65535|more than)"):
        read_image(file)
    assert "its header claims" in str(probe(file).problem)


def test_a_small_file_of_many_pixels_is_refused_and_a_person_can_allow_it(tmp_path: Path, monkeypatch):
    file = tmp_path / "part.png"
    Image.new("RGB", (9000, 8000)).save(file)  # 72 million pixels in 0.2 MB
    with pytest.raises(DataError, match="as no photograph does; if it is one, set DEFECTLAB_MAX_PIXELS=72000000"):
        read_image(file)
    monkeypatch.setenv("DEFECTLAB_MAX_PIXELS", "71999999")
    with pytest.raises(DataError, match="at most 71999999 are decoded"):
        read_image(file)
    monkeypatch.setenv("DEFECTLAB_MAX_PIXELS", "72000000")
    assert read_image(file).shape == (8000, 9000, 3)
