"""How many pixels are decoded at most, and how many a file can hold, both told from its header before decoding."""

import io
import os
import re
from typing import IO

from PIL import Image

from defectlab_runtime.errors import DataError, OptionError

# Above the sensors and line scans that are scored in one piece: 23,170 pixels a side.
MAX_PIXELS = 1 << 29
MAX_PIXELS_VARIABLE = "DEFECTLAB_MAX_PIXELS"

# Pixels of 8 bits or more that a byte of a file can hold at most, by Pillow's names of codecs and of a TIFF's
# compressions. Of lossless WebP, which holds a picture of one colour in no bytes at all, there is no such number.
PIXELS_PER_BYTE = {
    **dict.fromkeys(("raw", "ppm", "ppm_plain"), 1),
    "packbits": 64,  # 128 in two bytes
    "bmp_rle": 128,  # 255 in two bytes
    **dict.fromkeys(("jpeg", "tiff_jpeg"), 1024),  # a bit for each 64 would be 512; what is missing is filled with grey
    **dict.fromkeys(("zip", "tiff_deflate", "tiff_adobe_deflate"), 1032),  # 258 in two bits
    "tiff_lzw": 2731,  # 4,096 in twelve bits
    "lzma": 1 << 13,
    "zstd": 1 << 15,  # 128 KiB in a block of four bytes
    "vp8": 640,  # lossy WebP: its modes cost 3.4 bits for each 256 at least
}
FAX = ("tiff_ccitt", "tiff_raw_16", "group3", "group4")
FAX_ROWS_PER_BYTE = 8  # a row like the one above is one bit; rows that are missing are filled with white


def max_pixels() -> int:
    """Return how many pixels an image may have: `MAX_PIXELS`, or what the environment says.

    Raises:
        OptionError: `DEFECTLAB_MAX_PIXELS` is no positive integer.
    """
    given = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not given:
        return MAX_PIXELS
    if not (given.isascii() and given.isdigit() and 0 < len(given) < 16 and int(given) > 0):
        raise OptionError(f"{MAX_PIXELS_VARIABLE} is {given!r}; it must be a number of pixels, such as {MAX_PIXELS}.")
    return int(given)


def check_pixels(image: Image.Image, size: int | None = None, *, codec: str | None = None) -> None:
    """Check the pixels that an image has by its header, before they are decoded, against `size`, its file's bytes.

    `codec`, a key of `PIXELS_PER_BYTE`, is for a format of which Pillow does not tell it.

    Raises:
        DataError: They are more than allowed, more than the file can hold, or more than it lists.
    """
    pixels, limit = image.width * image.height, max_pixels()
    claim = f"its header claims {image.width} x {image.height} pixels"
    if pixels > limit:
        raise DataError(f"{claim}, and at most {limit} are decoded ({MAX_PIXELS_VARIABLE} sets another limit)")
    if size is None:
        return
    tiles = getattr(image, "tile", ())  # codec, extents, offset and arguments of each part of the file
    most = PIXELS_PER_BYTE[codec] * size if codec else _most_pixels(image, size) if tiles else None
    if most is not None and pixels > most:
        raise DataError(f"{claim}, more than the {size} bytes of the file can hold: it is damaged")
    if not tiles:
        return
    listed = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in tiles)
    if listed < pixels * _planes(image):  # decoded as black
        raise DataError(f"{claim}, and the file lists {listed // _planes(image)} of them: it is damaged")


def is_lossy_webp(file: IO[bytes]) -> bool:
    """Return whether a file open for reading is a WebP of one lossy picture, from its list of chunks."""
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WEBP":
        return False
    while len(chunk := file.read(8)) == 8:
        kind, length = chunk[:4], int.from_bytes(chunk[4:], "little")
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            return kind == b"VP8 "
        file.seek(length + length % 2, io.SEEK_CUR)
    return False


def _most_pixels(image: Image.Image, size: int) -> int | None:
    """Return how many pixels a file of `size` bytes can hold, None where that is not known."""
    codec, _, _, arguments = image.tile[0]  # type: ignore[attr-defined]
    compression = image.info.get("compression") if codec == "libtiff" else codec
    if compression in FAX:
        return FAX_ROWS_PER_BYTE * size * image.width
    if compression not in PIXELS_PER_BYTE:
        return None
    raw_mode = arguments if isinstance(arguments, str) else arguments[0]
    small = re.match("()1", raw_mode) or re.search(r";([124])(?!\d)", raw_mode)  # 1;I, P;4 or L;2, and not I;16
    return PIXELS_PER_BYTE[compression] * size * (8 // int(small[1] or 1) if small else 1)


def _planes(image: Image.Image) -> int:
    """Return how often a file lists each pixel: once, or as many times as colours where these lie apart (TIFF)."""
    tags = getattr(image, "tag_v2", {})
    apart = image.tile[0][0] == "raw" and tags.get(284, 1) == 2  # type: ignore[attr-defined]
    return len(image.getbands()) if apart else 1
