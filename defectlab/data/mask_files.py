"""Reading of mask files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectlab.data.mask_content import NOT_ZERO, MaskChannels, MaskReading
from defectlab_runtime.image_bands import bands_of, pixels_of
from defectlab_runtime.image_decoding import (
    has_alpha,
    open_file,
    open_image,
    orientation_of,
    turn,
    upright_pixels,
)
from defectlab_runtime.images import unreadable


def read_mask(path: str | Path, reading: MaskReading = NOT_ZERO) -> NDArray[np.bool_]:
    """Return the mask as (H, W) bool: True where `reading` marks a pixel; the file's own EXIF rotation is applied.

    The orientation of `reading` comes after that.

    Raises:
        DataError: The file is missing, truncated or cannot be decoded.
    """
    try:
        with open_file(Path(path)) as file, open_image(file) as image:
            channels = mask_channels(image)
    except Exception as error:
        raise unreadable("mask", Path(path), error) from error
    return turn(reading.marked(channels.high, channels.low), reading.orientation)


def mask_channels(image: Image.Image) -> MaskChannels:
    """Return the channels of the upright pixels of an open mask file, whose colours are never held all at once."""
    image.load()
    if len(image.getbands()) == 1 and image.mode != "P":
        pixels = upright_pixels(image)
        return MaskChannels.of(pixels, pixels)
    orientation = orientation_of(image)
    high = low = np.empty((image.height, image.width), np.uint8)
    alpha = np.empty_like(high) if has_alpha(image) else None
    for rows, picture in bands_of(image):
        red, green, blue, *opacity = np.moveaxis(np.asarray(picture.convert("RGB" if alpha is None else "RGBA")), 2, 0)
        # ten times as fast as a maximum along the last axis
        largest, smallest = (find(find(red, green), blue) for find in (np.maximum, np.minimum))
        if low is high and not np.array_equal(largest, smallest):
            low = high.copy()
        high[rows] = largest
        if low is not high:
            low[rows] = smallest
        if alpha is not None:
            alpha[rows] = opacity[0]
    indices = turn(pixels_of(image), orientation) if image.mode == "P" else None
    upright = turn(high, orientation)
    return MaskChannels.of(
        upright,
        upright if low is high else turn(low, orientation),
        alpha=None if alpha is None else turn(alpha, orientation),
        indices=indices,
    )
