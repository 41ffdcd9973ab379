"""Images in bands of rows, so that a large one needs no second copy while it is read or compared."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BAND_PIXELS = 1 << 24


def row_blocks(height: int, width: int) -> Iterator[slice]:
    """Return slices of rows, of `BAND_PIXELS` pixels at most and a row at least, that cover an image from its top."""
    rows = max(1, BAND_PIXELS // max(1, width))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def bands_of(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Return an image in bands: the rows of each, and its picture."""
    if image.width * image.height <= BAND_PIXELS:
        return iter([(slice(0, image.height), image)])
    blocks = row_blocks(image.height, image.width)
    return ((rows, image.crop((0, rows.start, image.width, rows.stop))) for rows in blocks)


def pixels_of(image: Image.Image, mode: str | None = None) -> NDArray:
    """Return (H, W) or (H, W, C) pixels of a decoded image, of a large one without a second copy on the way.

    With `mode` they are converted to it.
    """
    pixels: NDArray | None = None
    for rows, picture in bands_of(image):
        band = np.asarray(picture if mode is None else picture.convert(mode))
        if len(band) == image.height:
            return band
        if pixels is None:
            pixels = np.empty((image.height, *band.shape[1:]), band.dtype)
        pixels[rows] = band
    assert pixels is not None
    return pixels
