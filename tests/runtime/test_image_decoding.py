"""What is opened and decoded at all: formats and whole files; and that every reader agrees."""

import io
import os

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from defectlab.data.image_facts import probe
from defectlab.data.mask_files import read_mask
from defectlab_runtime.errors import DataError
from defectlab_runtime.image_limits import max_pixels
from defectlab_runtime.images import decode_image, read_image

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def refused(path, words):
    """Check that each reader refuses a file, with a reason that holds `words`."""
    for read in (read_image, read_mask, lambda path: decode_image(path.read_bytes())):
        with pytest.raises(DataError, match=words):
            read(path)
    for as_mask in (False, True):
        assert words in str(probe(path, as_mask=as_mask).problem)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "GIF", "TGA", "ICO", "JPEG2000"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_other_formats_are_not_opened_under_the_name_of_a_known_one(tmp_path, monkeypatch, kind, suffix):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    path = tmp_path / f"a{suffix}"
    saved(path, COLOURS, format=kind)
    refused(path, "not an image of a kind that is read")


def test_a_known_format_is_read_under_the_name_of_another(tmp_path):
    saved(tmp_path / "a.jpg", COLOURS, format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), COLOURS)


def test_large_pictures_are_no_bombs(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", COLOURS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # 54 pixels would be refused
    assert read_image(path).shape == (6, 9, 3)
    assert max_pixels() <= Image.MAX_IMAGE_PIXELS


def test_every_reader_agrees_on_a_png_with_any_byte_changed(tmp_path):
    """EXIF was asked for before the pixels, which decoded a PNG and hid that it failed: 5.6 % passed data check."""
    whole = saved(tmp_path / "whole.png", COLOURS).read_bytes()
    readable = 0
    for at in range(len(whole)):
        path = tmp_path / f"{at}.png"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            read_image(path)
        except DataError:
            assert probe(path).problem, f"byte {at}"
        else:
            readable += 1
            assert not probe(path).problem, f"byte {at}"
    assert readable < 0.1 * len(whole)


def test_a_png_without_its_end_is_refused_and_more_behind_the_end_is_not(tmp_path):
    whole = saved(tmp_path / "whole.png", COLOURS).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-12])
    refused(tmp_path / "cut.png", "its end is missing")
    (tmp_path / "more.png").write_bytes(whole + b"written by a camera")
    np.testing.assert_array_equal(read_image(tmp_path / "more.png"), COLOURS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="pipe, socket or device"):
        read_image(tmp_path / "a.png")
    assert "pipe" in str(probe(tmp_path / "a.png").problem)


def test_a_stream_that_cannot_go_back_is_read(tmp_path):
    class Stream(io.RawIOBase):
        def __init__(self, content):
            self.content = io.BytesIO(content)

        def readable(self):
            return True

        def read(self, size=-1):
            return self.content.read(size)

    content = saved(tmp_path / "a.png", COLOURS).read_bytes()
    np.testing.assert_array_equal(decode_image(Stream(content)), COLOURS)
