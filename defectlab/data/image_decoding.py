"""Decoding of an open image file or Pillow image: its pixels turned upright, and what its header says."""

import logging
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

logger = logging.getLogger(__name__)

# Pillow refuses pictures above twice its limit (89 Mpx by default) as decompression bombs. Line-scan cameras exceed
# that, and the files are the user's own; above two gigapixels it is a damaged header rather than a photograph.
MAX_PIXELS = 1 << 30
ORIENTATION_TAG = 0x0112
RANGE_16_BIT = 65535


def open_image(file: IO[bytes]) -> Image.Image:
    """Return the image of a file open for reading, its header read and its pixels not."""
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    return Image.open(file)


def upright_pixels(image: Image.Image) -> NDArray:
    """Return (H, W) or (H, W, 3 or 4) pixels, turned as EXIF says; grey sources keep their depth."""
    image.load()
    orientation = orientation_of(image)  # after load: a PNG may carry it behind its pixels, a TIFF is turned already
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)  # native byte order
    elif image.mode == "I":  # Pillow's name for 16-bit PGM and for signed TIFF
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > RANGE_16_BIT:
            raise ValueError(f"32-bit integers from {wide.min()} to {wide.max()}; at most 16 bits are supported")
        pixels = wide.astype(np.uint16)
    elif image.mode in ("F", "L", "RGB"):
        pixels = np.asarray(image)
    elif image.mode == "1":
        pixels = np.asarray(image.convert("L"))
    else:
        pixels = np.asarray(image.convert("RGBA" if has_alpha(image) else "RGB"))
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
    """Return why a file could not be read, from what a decoder raised."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image, or cut off or damaged at its start"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
