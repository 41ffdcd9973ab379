"""Which headers are believed: those whose pixels the limit allows, the file's bytes can hold and the file lists."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from defectlab.data.image_facts import probe
from defectlab.data.image_sources import unreadable_files
from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import build_manifest
from defectlab.data.mask_files import read_mask
from defectlab_runtime.errors import DataError, OptionError
from defectlab_runtime.image_limits import MAX_PIXELS_VARIABLE, max_pixels
from defectlab_runtime.image_sources import read_images
from defectlab_runtime.images import decode_image, read_image
from tests.fuzz.images import png_chunks, png_of

COLOURS = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
FAX = ("group3", "group4", "tiff_ccitt")
PACKED = ("packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "zstd", "lzma")


def packed(image, kind, **options):
    """Return the bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def refused(path, content, words):
    """Check that each reader refuses a file, with a reason that holds `words`."""
    path.write_bytes(content)
    for read in (read_image, read_mask, lambda path: decode_image(path.read_bytes())):
        with pytest.raises(DataError, match=words):
            read(path)
    for as_mask in (False, True):
        assert words in str(probe(path, as_mask=as_mask).problem)


def jpeg_claiming(content, width, height):
    changed = bytearray(content)
    struct.pack_into(">HH", changed, changed.find(b"\xff\xc0") + 5, height, width)
    return bytes(changed)


def tiff_claiming(content, *, width=None, height=None, strip=None):
    """Return a TIFF whose header claims another size, and another number of rows a strip."""
    changed = bytearray(content)
    start = struct.unpack_from("<I", changed, 4)[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", changed, start)[0], 12):
        value = {256: width, 257: height, 278: strip}.get(struct.unpack_from("<H", changed, entry)[0])
        if value is not None:
            struct.pack_into("<HII", changed, entry + 2, 4, 1, value)
    return bytes(changed)


def png_claiming(content, width, height):
    chunks = png_chunks(content)
    chunks[0] = b"IHDR", struct.pack(">II", width, height) + chunks[0][1][8:]
    return png_of(chunks)


def run_length_bmp(width, height, pixels):
    """Return a BMP of 8-bit indices, whose `pixels` are compressed already."""
    palette = bytes(value for index in range(256) for value in (index, 0, 0, 0))
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + head + palette + pixels


def test_a_jpeg_that_claims_65535_pixels_a_side_is_refused_by_its_header(tmp_path):
    content = packed(Image.fromarray(COLOURS), "JPEG")
    refused(tmp_path / "lie.jpg", jpeg_claiming(content, 65_535, 65_535), f"more than {max_pixels()} pixels")
    refused(tmp_path / "less.jpg", jpeg_claiming(content, 30_000, 30_000), "claims 30000 x 30000 pixels")


def test_a_jpeg_of_more_pixels_than_its_bytes_can_hold_is_not_filled_with_grey(tmp_path):
    content = packed(Image.fromarray(COLOURS), "JPEG")
    refused(tmp_path / "lie.jpg", jpeg_claiming(content, 4_000, 4_000), "bytes of the file can hold")


@pytest.mark.parametrize("rows", [25, 8_388_608])
def test_a_tiff_whose_strips_end_before_its_rows_is_not_filled_with_black(tmp_path, rows):
    """One of 602 bytes was read as 168 million pixels, as a mask in 23 s (fuzz seed 11856)."""
    for name, pixels in (("L", COLOURS[..., 0]), ("RGB", COLOURS)):
        content = tiff_claiming(packed(Image.fromarray(pixels), "TIFF"), height=rows)
        refused(tmp_path / f"{name}.tif", content, "it is damaged")


def tiff_of(tags, *rest):
    """Return a TIFF of tags: numbers, or lists of numbers that lie behind them; in these, 0 means behind all lists."""
    lists = {tag: values for tag, values in tags.items() if isinstance(values, list)}
    behind = 8 + 2 + 12 * len(tags) + 4
    start = behind + sum(4 * len(values) for values in lists.values())
    head, more = b"II*\0" + struct.pack("<IH", 8, len(tags)), b""
    for tag, values in sorted(tags.items()):
        if isinstance(values, list):
            head += struct.pack("<HHII", tag, 4, len(values), behind + len(more))
            more += struct.pack(f"<{len(values)}I", *[start + value if tag == 273 else value for value in values])
        else:
            head += struct.pack("<HHII", tag, 4, 1, values)
    return head + bytes(4) + more + b"".join(rest)


def test_a_tiff_whose_strips_are_all_the_same_bytes_is_refused(tmp_path):
    tags = {256: 1_000, 257: 100, 258: 8, 259: 1, 262: 1, 277: 1, 278: 10, 279: [10_000] * 10}
    pixels = np.arange(100_000).astype(np.uint8).tobytes()
    whole = tiff_of({**tags, 273: [10_000 * strip for strip in range(10)]}, pixels)
    assert decode_image(whole)[..., 0].tobytes() == pixels
    refused(tmp_path / "same.tif", tiff_of({**tags, 273: [0] * 10}, pixels[:10_000]), "bytes of the file can hold")


def test_a_tiff_of_colours_apart_needs_all_of_them(tmp_path):
    planes = COLOURS.transpose(2, 0, 1).tobytes()
    tags = {256: 20, 257: 24, 258: [8, 8, 8], 259: 1, 262: 2, 277: 3, 278: 24, 279: [480] * 3, 284: 2}
    np.testing.assert_array_equal(decode_image(tiff_of({**tags, 273: [0, 480, 960]}, planes)), COLOURS)
    refused(tmp_path / "two.tif", tiff_of({**tags, 273: [0, 480]}, planes), "the file lists 320 of them")


@pytest.mark.parametrize("compression", FAX)
def test_a_fax_of_more_rows_than_bits_is_not_filled_with_white(tmp_path, compression):
    """One of 276 bytes was read as 400 million pixels."""
    content = packed(Image.fromarray(COLOURS).convert("1"), "TIFF", compression=compression)
    lie = tiff_claiming(content, width=20_000, height=20_000, strip=20_000)
    refused(tmp_path / "lie.tif", lie, "bytes of the file can hold")


@pytest.mark.parametrize("compression", PACKED)
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_a_compressed_tiff_of_more_pixels_than_its_bytes_can_hold_is_refused(tmp_path, mode, compression):
    grey = Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257)
    image = grey if mode == "I;16" else Image.fromarray(COLOURS).convert(mode)
    content = packed(image, "TIFF", compression=compression)
    lie = tiff_claiming(content, width=20_000, height=20_000, strip=20_000)
    refused(tmp_path / "lie.tif", lie, "bytes of the file can hold")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_a_png_of_more_pixels_than_its_bytes_can_hold_is_refused(tmp_path, mode):
    """A stream of pixels that ends early was filled with black (fuzz seed 12821)."""
    grey = Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257)
    image = grey if mode == "I;16" else Image.fromarray(COLOURS).convert(mode)
    refused(tmp_path / "lie.png", png_claiming(packed(image, "PNG"), 20_000, 20_000), "bytes of the file can hold")


def test_an_animated_png_whose_first_picture_is_smaller_than_it_claims_is_refused(tmp_path):
    """One of 4 KB was read as 67 million pixels (fuzz seed 20955)."""
    pictures = [Image.fromarray(COLOURS), Image.fromarray(COLOURS[::-1])]
    content = packed(pictures[0], "PNG", save_all=True, append_images=pictures[1:])
    np.testing.assert_array_equal(decode_image(content), COLOURS)
    refused(tmp_path / "lie.png", png_claiming(content, 30, 40), "the file lists 480 of them")


@pytest.mark.parametrize("kind", ["BMP", "PPM"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_an_uncompressed_file_of_more_pixels_than_bytes_is_refused(tmp_path, kind, mode):
    content = packed(Image.fromarray(COLOURS).convert(mode), kind)
    if kind == "BMP":
        lie = content[:18] + struct.pack("<II", 20_000, 20_000) + content[26:]
    else:
        lie = content.replace(b"20 24", b"20000 20000", 1)
    refused(tmp_path / "lie.ppm", lie, "bytes of the file can hold")


def test_a_run_length_bmp_holds_255_pixels_in_two_bytes(tmp_path):
    whole = run_length_bmp(510, 300, b"\xff\x01\xff\x01\0\0" * 300 + b"\0\1")
    assert decode_image(whole).shape == (300, 510, 3)
    refused(tmp_path / "skip.bmp", run_length_bmp(20_000, 20_000, b"\0\0" * 20_000), "bytes of the file can hold")
    refused(tmp_path / "jump.bmp", run_length_bmp(20_000, 20_000, b"\0\2\0\xff" * 80), "bytes of the file can hold")


def nearly_blank(mode, side):
    """Return a mask with one square of defect, which packs as well as any honest one."""
    mask = np.zeros((side, side), np.uint16 if mode == "I;16" else np.uint8)
    mask[side // 3 : side // 3 + side // 100, side // 3 : side // 3 + side // 100] = 65_535 if mode == "I;16" else 255
    return Image.fromarray(mask) if mode == "I;16" else Image.fromarray(mask).convert(mode)


@pytest.mark.parametrize(
    ("suffix", "mode", "options"),
    [
        *[("tif", "1", {"compression": name}) for name in (*FAX, *PACKED)],
        *[("tif", mode, {"compression": name}) for name in PACKED for mode in ("L", "P", "RGB", "I;16")],
        *[("png", mode, {"optimize": True}) for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16")],
        *[("bmp", mode, {}) for mode in ("1", "L", "P", "RGB")],
        *[("ppm", mode, {}) for mode in ("1", "L", "RGB", "I;16")],
        ("webp", "RGB", {"lossless": True}),
    ],
)
def test_a_nearly_blank_mask_is_read_in_every_format_and_compression(tmp_path, suffix, mode, options):
    path = tmp_path / f"mask.{suffix}"
    nearly_blank(mode, 2_000).save(path, **options)
    assert read_mask(path).sum() == 400
    assert not probe(path, as_mask=True).problem
    assert read_image(path).shape == (2_000, 2_000, 3)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("jpg", {"quality": 1}), ("tif", {"compression": "jpeg"}), ("webp", {}), ("webp", {"quality": 1, "exif": b"a"})],
)
def test_a_blank_mask_is_read_in_every_lossy_compression(tmp_path, suffix, options):
    path = tmp_path / f"mask.{suffix}"
    Image.new("RGB", (2_000, 2_000)).save(path, **options)
    assert read_mask(path).shape == (2_000, 2_000)


@pytest.mark.parametrize("options", [{}, {"exif": b"a"}])
def test_a_lossy_webp_of_a_few_bytes_that_claims_268_million_pixels(tmp_path, options):
    """Its decoder makes room for all of them, twice, before it sees that nothing comes."""
    path = tmp_path / "a.webp"
    Image.fromarray(COLOURS).save(path, **options)
    content = bytearray(path.read_bytes())
    struct.pack_into("<HH", content, content.find(b"\x9d\x01\x2a") + 3, 16_383, 16_383)
    if options:
        content[24:30] = (16_382).to_bytes(3, "little") * 2  # the canvas
    refused(path, bytes(content), "16383 x 16383 pixels, more than the")


def test_a_png_packed_as_tightly_as_deflate_can_is_read(tmp_path):
    """The bound itself: 4,000 rows of zeros at level 9."""
    head = struct.pack(">IIBBBBB", 4_000, 4_000, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(4_001) * 4_000, 9)
    path = tmp_path / "blank.png"
    path.write_bytes(png_of([(b"IHDR", head), (b"IDAT", body), (b"IEND", b"")]))
    assert 16_000_000 / path.stat().st_size > 1_000
    assert not read_mask(path).any()


def test_a_limit_of_pixels_that_the_environment_sets(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "479")
    refused(path, path.read_bytes(), MAX_PIXELS_VARIABLE)
    with pytest.raises(DataError, match="20 x 24 pixels, and at most 479"):
        decode_image(Image.open(path))
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "480")
    os.utime(path, ns=(1, 1))  # or its facts are remembered
    assert read_image(path).shape == (24, 20, 3)
    assert not probe(path).problem


@pytest.mark.parametrize("wrong", ["many", "-1", "0", "1e9"])
def test_a_wrong_limit_is_said_as_itself_and_not_as_the_fault_of_a_file(tmp_path, monkeypatch, wrong):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, wrong)
    readers = (read_image, read_mask, probe, lambda path: decode_image(path.read_bytes()))
    for read in (*readers, lambda path: decode_image(Image.open(path))):
        with pytest.raises(OptionError, match=f"is '{wrong}'"):
            read(path)


def test_a_wrong_limit_ends_the_work_before_any_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "many")
    monkeypatch.setattr("defectlab.data.image_facts.open_file", lambda path: pytest.fail(f"{path} was opened"))
    (tmp_path / "good").mkdir()
    Image.fromarray(COLOURS).save(tmp_path / "good" / "a.png")
    unreadable = []
    for work in (
        lambda: build_manifest(root=tmp_path, normal_dir="good"),
        lambda: check(root=tmp_path, normal_dir="good"),
        lambda: unreadable_files([tmp_path / "good" / "a.png"]),
        lambda: list(read_images(tmp_path / "good", lambda *reason: unreadable.append(reason))),
    ):
        with pytest.raises(OptionError, match="is 'many'; it must be a number of pixels"):
            work()
    assert not unreadable
