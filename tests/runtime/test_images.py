"""Reading images and masks: every kind of source against an independent reference."""

import logging
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from defectlab.data.image_facts import probe
from defectlab.data.mask_files import read_mask
from defectlab_runtime import images
from defectlab_runtime.errors import InputError
from defectlab_runtime.image_files import list_images
from defectlab_runtime.images import read_image, to_rgb_array

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = COLOURS[..., 0]


def saved(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".ppm"])
def test_lossless_colour_is_read_as_stored(tmp_path, suffix):
    read = read_image(saved(tmp_path / f"a{suffix}", COLOURS))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, COLOURS)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("value", range(1, 9))
def test_exif_rotation_as_pillow_applies_it(tmp_path, value, suffix):
    path = saved(tmp_path / f"a{suffix}", np.tile(COLOURS, (4, 4, 1)), exif=orientation(value))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path), expected)
    facts = probe(path)
    assert (facts.height, facts.width) == expected.shape[:2]
    assert (facts.raw_width, facts.raw_height) == (36, 24)
    assert facts.problem is None


def test_exif_rotation_of_16_bit_and_of_masks(tmp_path):
    deep = GREY.astype(np.uint16) * 257
    read = read_image(saved(tmp_path / "a.png", deep, exif=orientation(6)))
    np.testing.assert_array_equal((read[..., 0] * 255).round().astype(np.uint8), np.rot90(GREY, -1))
    mask = (GREY > 128).astype(np.uint8) * 255
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "m.png", mask, exif=orientation(8))), np.rot90(mask) > 0)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_is_scaled_by_its_range(tmp_path, suffix):
    deep = np.array([[0, 1, 256], [32768, 65534, 65535]], dtype=np.uint16)
    path = tmp_path / f"a{suffix}"
    if suffix == ".pgm":
        path.write_bytes(b"P5\n3 2\n65535\n" + deep.astype(">u2").tobytes())
    else:
        saved(path, deep)
    read = read_image(path)
    assert read.dtype == np.float32
    assert read.shape == (2, 3, 3)
    for channel in range(3):
        np.testing.assert_allclose(read[..., channel], deep / 65535, rtol=1e-6)
    assert probe(path).problem is None


def test_16_bit_colour_keeps_its_upper_byte(tmp_path):
    deep = np.random.default_rng(1).integers(0, 65536, (4, 5, 3)).astype(">u2")

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(read_image(path), (deep >> 8).astype(np.uint8))


def test_16_bits_for_three_colours_are_no_16_bit_colour(tmp_path):
    head = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    path = tmp_path / "a.bmp"
    path.write_bytes(b"BM" + struct.pack("<IHHI", 70, 0, 0, 66) + head + struct.pack("<HH", 0xF800, 0x001F))
    np.testing.assert_array_equal(read_image(path, bit_depth=12), [[[255, 0, 0], [0, 0, 255]]])
    facts = probe(path)
    assert (facts.deep_colour, facts.largest, facts.problem) == (False, None, None)


def test_float_and_32_bit_sources_have_ranges(tmp_path):
    unit = saved(tmp_path / "unit.tif", np.array([[0.0, 0.25, 1.0]], dtype=np.float32))
    np.testing.assert_array_equal(read_image(unit)[0, :, 0], [0, 0.25, 1])
    for name, array in [("f", np.array([[0, 300.0]], np.float32)), ("i", np.array([[0, 70000]], np.int32))]:
        path = saved(tmp_path / f"{name}.tif", array)
        assert "300" in str(probe(path).problem) or "70000" in str(probe(path).problem)
        with pytest.raises(InputError):
            read_image(path)


def test_one_channel_is_repeated_and_one_bit_is_black_and_white(tmp_path):
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", GREY)), np.stack([GREY] * 3, axis=-1))
    read = read_image(saved(tmp_path / "b.png", GREY > 100))
    np.testing.assert_array_equal(read[..., 2], np.where(GREY > 100, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_dropped_not_blended_and_said_once(tmp_path, caplog, mode):
    images._log_alpha.cache_clear()
    flat = np.full((4, 4, 4), (200, 200, 200, 0), dtype=np.uint8)
    if mode == "P":
        image = Image.new("P", (4, 4), 1)
        image.putpalette([0, 0, 0, 200, 200, 200])
        options = {"transparency": 1}
    else:
        image, options = Image.fromarray(flat).convert(mode), {}
    for name in ("a.png", "b.png"):
        image.save(tmp_path / name, **options)
    with caplog.at_level(logging.INFO, logger="defectlab.runtime"):
        for name in ("a.png", "b.png"):
            read = read_image(tmp_path / name)
            assert read.shape == (4, 4, 3)
            assert (read == 200).all()
    assert len([r for r in caplog.records if "alpha" in r.message]) == 1


def test_palette_and_cmyk_become_rgb(tmp_path):
    palette = Image.fromarray(COLOURS // 128 * 255).quantize(8)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), np.asarray(palette.convert("RGB")))
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    red = read_image(tmp_path / "c.jpg")
    assert red[..., 0].min() > 240
    assert red[..., 1:].max() < 15


def test_arrays_follow_the_same_rules():
    assert to_rgb_array(GREY).shape == to_rgb_array(GREY[..., None]).shape == (6, 9, 3)
    np.testing.assert_array_equal(to_rgb_array(np.dstack([COLOURS, GREY])), COLOURS)
    np.testing.assert_allclose(to_rgb_array(np.full((2, 2), 0.5))[..., 1], 0.5)
    assert to_rgb_array(np.zeros((2, 2, 3), np.float64)).dtype == np.float32
    for bad, words in [
        (np.zeros((3, 8, 9), np.uint8), "transpose"),
        (np.zeros((8, 9, 2), np.uint8), "shape"),
        (np.zeros((0, 9, 3), np.uint8), "shape"),
        (np.zeros((8, 9), np.int64), "int64"),
        (np.full((8, 9), 1.5), "1.5"),
        (np.full((8, 9), np.nan), "nan"),
    ]:
        with pytest.raises(InputError, match=words):
            to_rgb_array(bad)


@pytest.mark.parametrize(
    "name",
    [
        "деталь/дефект.png",
        "零件/缺陷.jpg",
        unicodedata.normalize("NFD", "pièce/défaut.png"),
        unicodedata.normalize("NFC", "pièce/défaut.png"),
        "ж" * 125 + ".png",
        "/".join(["x" * 200] * 15) + "/a.png",
    ],
    ids=["cyrillic", "chinese", "nfd", "nfc", "254 bytes", "3000 characters"],
)
def test_names_of_any_script_and_length(tmp_path, name):
    path = saved(tmp_path / name, COLOURS, quality=95)
    assert list_images(tmp_path) == [path]
    assert probe(path).problem is None
    assert read_image(path).shape == (6, 9, 3)
    assert read_mask(path).shape == (6, 9)
