"""Facts on image files: hash, size, problems, and what `data check` reports, from one full decoding of each."""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from defectlab.data.mask_content import MaskContent
from defectlab.data.mask_files import mask_channels
from defectlab_runtime.image_bands import bands_of
from defectlab_runtime.image_decoding import (
    is_deep_colour,
    open_file,
    open_image,
    orientation_of,
    reason_of,
    upright_pixels,
)
from defectlab_runtime.image_limits import max_pixels
from defectlab_runtime.images import to_rgb_array

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 200_000  # files
MAX_PAGES = 1_000  # that are counted


@dataclass(frozen=True)
class ImageFacts:
    """Facts about an image file: size after and before EXIF rotation, Pillow mode, content hash, and any problem.

    `orientation` is the EXIF value of the rotation, 1 for none. `largest` is the largest value of a file of more than 8
    bits, in its own numbers, else None; of colours of 16 bits (`deep_colour`), whose upper 8 alone can be read, it is
    the largest possible one.

    A file with a problem has the sizes and mode found until then (0 and "" if none). `grey_values` is 1 where all
    pixels have one colour, 2 where they are black or one other grey value, as in a mask; 0 otherwise, and where it is
    not known (JPEG, whose noise hides it, and more than 8 bits). Of several `pages` only the first is ever read. `mask`
    is what was found in a file read as a mask.
    """

    width: int
    height: int
    raw_width: int
    raw_height: int
    mode: str
    sha256: str
    problem: str | None = None
    grey_values: int = 0
    pages: int = 1
    orientation: int = 1
    largest: int | None = None
    deep_colour: bool = False
    mask: MaskContent | None = field(default=None, compare=False)


def probe(path: Path, as_mask: bool = False) -> ImageFacts:
    """Hash and fully decode an image file and return its facts, cached in this process by path, size and times.

    With `as_mask` the facts have the content of the mask.
    """
    try:
        status = path.stat()
    except OSError as error:
        return ImageFacts(0, 0, 0, 0, "", "", reason_of(error))
    return _probe(str(path), status.st_size, (status.st_mtime_ns, status.st_ctime_ns), as_mask)


def probe_all(paths: Sequence[Path], as_masks: bool = False) -> list[ImageFacts]:
    """Return `probe` of each path, in order; Pillow decodes outside the interpreter lock, so threads help.

    Raises:
        OptionError: The limit of pixels in the environment is no number; no file is read then.
    """
    max_pixels()
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(partial(probe, as_mask=as_masks), paths))


@lru_cache(maxsize=MAX_REMEMBERED)
def _probe(path: str, size: int, times: tuple[int, int], as_mask: bool) -> ImageFacts:
    del size, times  # only part of the key: a changed file is read again, also one that was copied with its date
    try:
        with open_file(Path(path)) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return _facts(file, sha256, as_mask)
    except OSError as error:
        return ImageFacts(0, 0, 0, 0, "", "", reason_of(error))


def _facts(file: IO[bytes], sha256: str, as_mask: bool) -> ImageFacts:
    """Return the facts of an image file that is open for reading and was hashed."""
    if not file.tell():
        return ImageFacts(0, 0, 0, 0, "", sha256, "empty file (0 bytes)")
    width = height = raw_width = raw_height = 0
    mode, mask = "", None
    try:
        with open_image(file) as image:
            mode, (raw_width, raw_height) = image.mode, image.size
            width, height = raw_width, raw_height
            deep_colour = is_deep_colour(image)  # before EXIF is asked for, which decodes a PNG
            early = orientation_of(image) if image.format == "TIFF" else 1  # it would decode a PNG and hide its damage
            if not as_mask:
                image.draft(image.mode, (1, 1))  # JPEG only: every byte of the stream, an eighth of the arithmetic
            image.load()
            orientation = early if image.format == "TIFF" else orientation_of(image)
            if image.format == "TIFF":  # Pillow turns these by itself and reports the turned size from the start
                raw_width, raw_height = (height, width) if early >= 5 else (width, height)
            elif orientation >= 5:
                width, height = raw_height, raw_width
            if as_mask:
                mask = mask_channels(image).content(lossy=image.format in ("JPEG", "MPO"))
            elif not _is_plain(image.mode):
                for _, band in bands_of(image):  # ranges of 32-bit sources, modes without an RGB meaning
                    to_rgb_array(upright_pixels(band))
            largest = _largest(image, deep_colour)
            grey_values, pages = _grey_values(image), _pages(image)
    except Exception as error:
        return ImageFacts(width, height, raw_width, raw_height, mode, sha256, reason_of(error))
    return ImageFacts(
        width,
        height,
        raw_width,
        raw_height,
        mode,
        sha256,
        None,
        grey_values,
        pages,
        orientation,
        largest,
        deep_colour,
        mask,
    )


def _largest(image: Image.Image, deep_colour: bool) -> int | None:
    """Return the largest value of a decoded image of more than 8 bits as `ImageFacts` has it."""
    if deep_colour:
        colours = 1 if image.mode == "LA" else 3
        return max(int(np.asarray(band)[..., :colours].max()) for _, band in bands_of(image)) * 256 + 255
    if not image.mode.startswith("I"):
        return None
    return max(int(np.asarray(band).max()) for _, band in bands_of(image))


def _pages(image: Image.Image) -> int:
    """Return the number of pages of a TIFF, or of pictures of an animation, at most `MAX_PAGES`.

    It is 1 where a later page is damaged.
    """
    if image.format not in ("TIFF", "PNG", "WEBP"):  # phones hide a second picture in a JPEG
        return 1
    if image.format != "TIFF":
        return min(MAX_PAGES, int(getattr(image, "n_frames", 1)))
    try:
        for page in range(1, MAX_PAGES):  # n_frames would take minutes for a file of many thousand empty pages
            image.seek(page)
    except EOFError:
        return image.tell() + 1
    except Exception as error:
        logger.debug("Pages cannot be counted: %r", error)
        return 1
    return MAX_PAGES


def _grey_values(image: Image.Image) -> int:
    """Return the number of grey values of a decoded image as `ImageFacts` has it."""
    if image.format in ("JPEG", "MPO") or image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        return 0
    colours: set[Any] = set()
    for _, band in bands_of(image):
        found = (band.convert("RGB") if image.mode in ("P", "PA", "LA") else band).getcolors(2)
        colours |= {colour for _, colour in found or []}
        if not found or len(colours) > 2:
            return 0
    values = [tuple(colour[:3]) if isinstance(colour, tuple) else (colour,) * 3 for colour in colours]
    if len(values) == 2 and not ((0, 0, 0) in values and all(len(set(value)) == 1 for value in values)):
        return 0
    return len(values)


def _is_plain(mode: str) -> bool:
    return mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr") or mode.startswith("I;16")
