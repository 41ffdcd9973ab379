"""PNGs whose stream of pixels ends after a whole row, with right checksums: Pillow reads them as black below."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from defectlab.data.image_facts import probe
from defectlab.data.mask_files import read_mask
from defectlab_runtime.errors import DataError
from defectlab_runtime.images import decode_image, read_image
from defectlab_runtime.png_stream import ADAM7

WIDTH, HEIGHT = 13, 11
KINDS = {  # depth and colour type of the header, bits of a pixel
    "grey": (8, 0, 8),
    "mask": (1, 0, 1),
    "deep": (16, 0, 16),
    "colour": (8, 2, 24),
    "palette": (4, 3, 4),
    "alpha": (8, 6, 32),
    "grey alpha": (16, 4, 32),
}


def chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


def png(kind: str, stream: bytes, interlaced: bool, pieces: int = 3) -> bytes:
    depth, colour, _ = KINDS[kind]
    header = WIDTH.to_bytes(4, "big") + HEIGHT.to_bytes(4, "big") + bytes([depth, colour, 0, 0, interlaced])
    palette = chunk(b"PLTE", bytes(3) + bytes(range(3, 48))) if colour == 3 else b""
    packed = zlib.compress(stream)
    size = -(-len(packed) // pieces)
    data = b"".join(chunk(b"IDAT", packed[start : start + size]) for start in range(0, len(packed), size))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + data + chunk(b"IEND", b"")


def rows_of(kind: str, interlaced: bool, value: int) -> list[bytes]:
    """Return rows without a filter in which every byte is `value`."""
    bits, rows = KINDS[kind][2], []
    for left, top, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns = len(range(left, WIDTH, across))
        rows += [b"\0" + bytes([value]) * -(-columns * bits // 8) for _ in range(top, HEIGHT, down) if columns]
    return rows


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_ends_early_is_damage_to_every_reader(tmp_path: Path, kind: str, interlaced: bool):
    path, rows = tmp_path / "a.png", rows_of(kind, interlaced, 0x55)
    whole = b"".join(rows)
    for count in (1, len(rows) // 2, len(rows) - 1):
        content = png(kind, b"".join(rows[:count]), interlaced, pieces=1)
        path.write_bytes(content)
        length = len(b"".join(rows[:count]))
        for read in (read_image, read_mask, lambda _, content=content: decode_image(content)):
            with pytest.raises(DataError, match=f"stream of pixels ends after {length} of {len(whole)} bytes"):
                read(path)
        for as_mask in (False, True):
            assert f"ends after {length} of {len(whole)}" in str(probe(path, as_mask=as_mask).problem)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_stream_is_read_black_or_not_and_with_more_behind_it(tmp_path: Path, kind: str, interlaced: bool):
    path = tmp_path / "a.png"
    for value in (0, 0x55):
        for more in (b"", b"more"):
            path.write_bytes(png(kind, b"".join(rows_of(kind, interlaced, value)) + more, interlaced))
            assert read_image(path).shape[:2] == (HEIGHT, WIDTH)
            assert np.any(read_image(path)) == (value != 0)
