"""Reading of image files and arrays, identically for training, prediction and checks."""

import io
import logging
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectlab_runtime.errors import DataError, InputError
from defectlab_runtime.image_decoding import (
    RANGE_16_BIT,
    has_alpha,
    is_deep_colour,
    open_file,
    open_image,
    reason_of,
    upright_pixels,
)
from defectlab_runtime.image_limits import check_pixels

logger = logging.getLogger("defectlab.runtime")  # one logger, "defectlab", for runtime and toolkit


def read_image(path: str | Path, bit_depth: int | None = None) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return an upright image (H, W, 3): uint8, or float32 in [0, 1] for 16-bit grey and float sources.

    The EXIF rotation is applied, one channel is repeated, palettes and CMYK become RGB, alpha is dropped.
    Colour files of 16 bits a channel keep their upper 8 bits (Pillow has no deeper colour). Values of 16-bit grey files
    have `bit_depth` bits, 16 by default; it does not affect files of 8 bits.

    Raises:
        DataError: The file is missing, truncated, cannot be decoded, or has values beyond `bit_depth`.
    """
    pixels, has_alpha, deep_colour = _read(Path(path))
    if has_alpha:
        _log_alpha(Path(path).parent)
    return _as_rgb(pixels, deep_colour, bit_depth, f"image {path}")


def decode_image(
    source: bytes | IO[bytes] | Image.Image, bit_depth: int | None = None
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return what `read_image` does for the bytes of an image file, a file open for reading, or a Pillow image.

    Raises:
        DataError: It cannot be decoded, or has values beyond `bit_depth`.
    """
    what = f"image given as {type(source).__name__}"
    try:
        pixels, deep_colour = _decoded(source)
    except Exception as error:
        raise DataError(f"Cannot read the {what}: {reason_of(error)}.") from error
    return _as_rgb(pixels, deep_colour, bit_depth, what)


def _decoded(source: bytes | IO[bytes] | Image.Image) -> tuple[NDArray, bool]:
    """Return the upright pixels of what `decode_image` takes, and whether it has 16 bits a colour."""
    if isinstance(source, Image.Image):
        check_pixels(source)
        deep_colour = is_deep_colour(source)  # before its pixels are decoded
        return upright_pixels(source), deep_colour
    with open_image(io.BytesIO(source) if isinstance(source, bytes | bytearray) else source) as image:
        deep_colour = is_deep_colour(image)
        return upright_pixels(image), deep_colour


def _read(path: Path) -> tuple[NDArray, bool, bool]:
    """Return the upright pixels of a file, (H, W) or (H, W, C), and whether it has alpha, and 16 bits a colour."""
    try:
        with open_file(path) as file, open_image(file) as image:
            deep_colour = is_deep_colour(image)
            return upright_pixels(image), has_alpha(image), deep_colour
    except Exception as error:
        raise unreadable("image", path, error) from error


def _as_rgb(
    pixels: NDArray, deep_colour: bool, bit_depth: int | None, what: str
) -> NDArray[np.uint8] | NDArray[np.float32]:
    if deep_colour and bit_depth is not None:
        raise DataError(
            f"The {what} has 16 bits a colour, of which the upper 8 alone can be read, and bit_depth is {bit_depth}: "
            "save it as 8-bit colour or 16-bit grey."
        )
    try:
        return to_rgb_array(pixels, bit_depth)
    except InputError as error:
        raise DataError(f"Cannot read the {what}: {error}") from error


def unreadable(what: str, path: Path, error: Exception) -> DataError:
    """Return the error for what a decoder raised, which may be anything: OSError, SyntaxError, struct.error."""
    return DataError(f"Cannot read the {what} {path}: {reason_of(error)}. Replace or remove the file.")


@cache
def _log_alpha(folder: Path) -> None:
    logger.info("Images in %s have an alpha channel: it is dropped, the colours beneath are used.", folder)


def as_uint8(image: np.ndarray) -> np.ndarray:
    """Convert an image, uint8 or float in [0, 1], to uint8 for display."""
    return image if image.dtype == np.uint8 else (image * 255).round().astype(np.uint8)


def to_rgb_array(array: NDArray, bit_depth: int | None = None) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return a user's array as (H, W, 3): uint8 stays, uint16 is scaled by 65535, floats in [0, 1] become float32.

    With `bit_depth`, uint16 is scaled by 2 ** bit_depth - 1.

    Accepts (H, W), (H, W, 1), (H, W, 3) and (H, W, 4), whose alpha is dropped.

    Raises:
        InputError: Another shape or type, uint16 beyond `bit_depth`, or floats that are not finite or leave [0, 1].

    >>> to_rgb_array(np.full((2, 5), 65535, np.uint16))[0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]  # (H, W) -> (H, W, 1)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = " It looks like (C, H, W): pass array.transpose(1, 2, 0)." if channels_first else ""
        raise InputError(
            f"An image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got shape {array.shape}.{hint}"
        )
    array = array[..., :3]
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        top = RANGE_16_BIT if bit_depth is None else 2**bit_depth - 1
        if array.max() > top:
            raise InputError(f"It has values up to {array.max()}, and bit_depth {bit_depth} ends at {top}.")
        # (H, W, 1) or (H, W, 3) -> (H, W, 3), in one copy
        array = np.divide(array, np.float32(top), out=np.empty((*array.shape[:2], 3), np.float32))
    elif array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # also false for NaN
            raise InputError(
                f"A float image must be finite and within [0, 1], got [{low:g}, {high:g}]. "
                "Divide it by its range, or pass it as uint8 or uint16."
            )
        array = array.astype(np.float32)
    elif array.dtype != np.uint8:
        raise InputError(f"An image array must be uint8, uint16 or float in [0, 1], got {array.dtype}.")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)  # (H, W, 1) -> (H, W, 3)
    return np.ascontiguousarray(array)
