"""Whether the compressed stream of a PNG holds all pixels of its header, which Pillow does not say.

A stream that ends in good order after some row is whole to Pillow, and the rows below stay black.
"""

import io
import zlib
from collections.abc import Iterator
from typing import IO

from PIL import Image

from defectlab_runtime.errors import DataError

START = b"\x89PNG\r\n\x1a\n"
BLOCK = 1 << 20  # bytes
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# First column and row, and steps between them, of the seven passes of an interlaced picture.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def check_stream_once_decoded(image: Image.Image, file: IO[bytes]) -> None:
    """Have a PNG that is not decoded yet raise DataError as it is decoded, if its stream ends early.

    Only a picture whose last row is black has its stream counted; an interlaced one always.
    """
    load_end = image.load_end  # type: ignore[attr-defined]

    def load_end_and_check() -> None:
        load_end()
        last = image.crop((0, image.height - 1, image.width, image.height))
        if image.info.get("interlace") or not any(last.tobytes()):
            place = file.tell()
            _check_stream(file)
            file.seek(place)

    image.load_end = load_end_and_check  # type: ignore[attr-defined]


def _check_stream(file: IO[bytes]) -> None:
    file.seek(len(START) + 8)
    header = file.read(13)
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    needed = _stream_bytes(width, height, header[8] * CHANNELS[header[9]], interlaced=bool(header[12]))
    found, inflate = 0, zlib.decompressobj()
    for block in _image_data(file):
        while block and not inflate.eof and found < needed:
            found += len(inflate.decompress(block, BLOCK))
            block = inflate.unconsumed_tail
    found += len(inflate.flush())
    if found < needed:
        raise DataError(f"its stream of pixels ends after {found} of {needed} bytes: it is damaged, and black below")


def _image_data(file: IO[bytes]) -> Iterator[bytes]:
    """Return the content of the IDAT chunks of a PNG open for reading, in blocks."""
    file.seek(len(START))
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] != b"IDAT":
            file.seek(length + 4, io.SEEK_CUR)
            continue
        while length > 0 and (block := file.read(min(length, BLOCK))):
            length -= len(block)
            yield block
        file.seek(4, io.SEEK_CUR)


def _stream_bytes(width: int, height: int, bits: int, *, interlaced: bool) -> int:
    """Return how many bytes a picture has before compression, a filter's byte before each row.

    >>> _stream_bytes(10, 3, 1, interlaced=False)
    9
    """
    total = 0
    for left, top, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        total += max(rows, 0) * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    return total
