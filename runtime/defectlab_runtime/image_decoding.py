"""Decoding of an open image file or Pillow image: its pixels turned upright, and what its header says."""

import io
import logging
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectlab_runtime.errors import DataError, OptionError
from defectlab_runtime.image_bands import pixels_of
from defectlab_runtime.image_limits import MAX_PIXELS_VARIABLE, check_pixels, is_lossy_webp, max_pixels
from defectlab_runtime.png_stream import START as PNG_START
from defectlab_runtime.png_stream import check_stream_once_decoded

logger = logging.getLogger("defectlab.runtime")  # one logger, "defectlab", for runtime and toolkit

# Pillow's names of what the endings in `IMAGE_EXTENSIONS` stand for (JPEG: MPO too). Whatever a file is called, nothing
# else is opened: among Pillow's other formats are some that start a program (EPS: Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")

PNG_END = b"IEND\xaeB`\x82"
BLOCK = 1 << 20  # bytes
ORIENTATION_TAG = 0x0112
RANGE_16_BIT = 65535


@contextmanager
def open_file(path: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading; a pipe or device, from which reading may never end, raises OSError."""
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError("a pipe, socket or device, not a file")
    with path.open("rb") as file:
        yield file


def open_image(file: IO[bytes]) -> Image.Image:
    """Return the image of a file open for reading, its header read and its pixels not.

    Raises:
        DataError: Its header claims more pixels than are decoded or than the file can hold, or it is a PNG without an
            end.
        OptionError: The limit of pixels in the environment is no number.
        Exception: What Pillow raises of a file that it cannot read, which may be anything.
    """
    try:
        size = file.seek(0, io.SEEK_END)
    except (AttributeError, OSError):
        file = io.BytesIO(file.read())
        size = file.seek(0, io.SEEK_END)
    _check_png_end(file, size)
    limit = max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    codec = "vp8" if is_lossy_webp(file) else None
    image = Image.open(file, formats=FORMATS)
    try:
        check_pixels(image, size, codec=codec)
    except DataError:
        image.close()
        raise
    if image.format == "PNG":
        check_stream_once_decoded(image, file)
    return image


def _check_png_end(file: IO[bytes], size: int) -> None:
    """Raise DataError for a PNG that lacks its last chunk, which Pillow does not miss."""
    file.seek(0)
    if file.read(len(PNG_START)) != PNG_START:
        return
    file.seek(max(0, size - len(PNG_END)))
    if file.read() == PNG_END:
        return
    file.seek(0)  # some programs write behind the end
    before = b""
    while block := file.read(BLOCK):
        if PNG_END in before + block:
            return
        before = block[-len(PNG_END) :]
    raise DataError("image file is truncated (its end is missing)")


def upright_pixels(image: Image.Image) -> NDArray:
    """Return (H, W) or (H, W, 3 or 4) pixels, turned as EXIF says; grey sources keep their depth."""
    image.load()
    orientation = orientation_of(image)  # after load: a PNG may carry it behind its pixels, a TIFF is turned already
    if image.mode.startswith("I;16"):
        pixels = pixels_of(image).astype(np.uint16)  # native byte order
    elif image.mode == "I":  # Pillow's name for 16-bit PGM and for signed TIFF
        wide = pixels_of(image)
        if wide.min() < 0 or wide.max() > RANGE_16_BIT:
            raise ValueError(f"32-bit integers from {wide.min()} to {wide.max()}; at most 16 bits are supported")
        pixels = wide.astype(np.uint16)
    elif image.mode in ("F", "L", "RGB"):
        pixels = pixels_of(image)
    elif image.mode == "1":
        pixels = pixels_of(image, "L")
    else:
        pixels = pixels_of(image, "RGBA" if has_alpha(image) else "RGB")
    return turn(pixels, orientation)


def turn(pixels: NDArray, orientation: int) -> NDArray:
    """Apply an EXIF orientation (1 to 8) to (H, W, ...) pixels; 5 to 8 give (W, H, ...)."""
    if orientation in (2, 3):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4):
        pixels = pixels[::-1]
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)  # (H, W, ...) -> (W, H, ...)
    if orientation in (6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (7, 8):
        pixels = pixels[::-1]
    return pixels


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation (1 to 8) of an image, 1 where it has none or its EXIF is damaged."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception as error:  # a damaged EXIF block does not make the picture unusable
        logger.debug("EXIF cannot be read: %r", error)
        return 1
    return value if value in range(1, 9) else 1


def has_alpha(image: Image.Image) -> bool:
    """Return whether an image has opacity, as a channel or as a colour of its palette."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or (image.mode == "P" and "transparency" in image.info)


def is_deep_colour(image: Image.Image) -> bool:
    """Return whether a file that is not decoded yet has 16 bits a colour, which Pillow reduces to 8."""
    stored = getattr(image, "tile", ())  # codec, extents, offset and raw mode of each part
    deep = (";16B", ";16L", ";16N")  # by byte order; BGR;16 has 16 bits for all three colours
    return any(kind in str(tile[3]) for tile in stored for kind in deep) and image.mode in ("LA", "RGB", "RGBA")


def reason_of(error: Exception) -> str:
    """Return why a file could not be read, from what a decoder raised.

    Raises:
        OptionError: It is `error`: a wrong option is not the file's fault.
    """
    if isinstance(error, OptionError):
        raise error
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image of a kind that is read ({', '.join(FORMATS)}), or cut off or damaged at its start"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"its header claims more than {max_pixels()} pixels ({MAX_PIXELS_VARIABLE} sets another limit)"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
