"""Reading of image files with Pillow, identically for training, prediction and checks."""

import hashlib
import io
import logging
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectlab.data.mask_content import NOT_ZERO, MaskChannels, MaskContent, MaskReading
from defectlab.utils.errors import DataError, InputError

logger = logging.getLogger(__name__)

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pbm", ".pgm", ".ppm", ".pnm", ".pxm")

# Pictures of a kind that is not read, as users may take them for images that are.
OTHER_PICTURES = (
    *(".gif", ".jfif", ".jpe", ".jp2", ".j2k", ".jxl", ".jxr", ".heic", ".heif", ".avif", ".tga", ".psd", ".svg"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".exr", ".hdr", ".dcm", ".fits", ".npy"),
)

# Thumbnails and rubbish that network drives, Windows and macOS put beside the images.
SYSTEM_FOLDERS = ("@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "lost+found")

# Pillow refuses pictures above twice its limit (89 Mpx by default) as decompression bombs. Line-scan cameras exceed
# that, and the files are the user's own; above two gigapixels it is a damaged header rather than a photograph.
MAX_PIXELS = 1 << 30
ORIENTATION_TAG = 0x0112
RANGE_16_BIT = 65535
MAX_REMEMBERED = 200_000  # files


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


def nfc(text: str) -> str:
    """Return `text` in Unicode form NFC, since macOS stores file names with decomposed accents."""
    return unicodedata.normalize("NFC", text)


def list_images(folder: Path, extensions: Iterable[str] | str | None = None) -> list[Path]:
    """Return the image files under `folder` at any depth, sorted by their NFC relative posix path.

    Names that start with a dot are skipped (macOS leaves `._x.png` beside `x.png`), and the folders that `walk_folder`
    leaves out.
    """
    endings = normalised_extensions(extensions)
    found = [Path(parent, f) for parent, files in walk_folder(folder) for f in files if f.lower().endswith(endings)]
    return sorted(found, key=lambda path: path_order(path.relative_to(folder).as_posix()))


def walk_folder(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder at and below `folder` with the names of its visible files; links to folders are followed once.

    Folders that drives and archivers make for themselves (`SYSTEM_FOLDERS`) are left out with all below them.
    """
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(parent)  # noqa: PTH116 - os.walk gives strings
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(filter(is_user_folder, folders))
        yield Path(parent), [name for name in files if not name.startswith(".")]


def is_user_folder(name: str) -> bool:
    """Return whether a folder's name is neither hidden nor that of thumbnails or rubbish of a drive."""
    return not name.startswith(".") and name.lower() not in SYSTEM_FOLDERS


def other_pictures(folder: Path) -> list[str]:
    """Return a line for each ending of `OTHER_PICTURES` below a folder: how many files have it, and one of them."""
    found: dict[str, list[str]] = {}
    for parent, files in walk_folder(folder):
        for name in files:
            if name.lower().endswith(OTHER_PICTURES):
                found.setdefault(Path(name).suffix.lower(), []).append((parent / name).relative_to(folder).as_posix())
    return [f"{len(names)} {ending} such as {min(names)}" for ending, names in sorted(found.items())]


def normalised_extensions(extensions: Iterable[str] | str | None) -> tuple[str, ...]:
    """Return file endings in lower case with a leading dot; None gives `IMAGE_EXTENSIONS`.

    >>> normalised_extensions(["PNG", ".jpg"])
    ('.png', '.jpg')
    """
    if extensions is None:
        return IMAGE_EXTENSIONS
    given = [extensions] if isinstance(extensions, str) else extensions
    return tuple("." + ending.lower().lstrip(".") for ending in given)


def path_order(path: str) -> tuple[str, str]:
    """Return the sort key of a relative path, NFC form first, so that the order is equal on all file systems."""
    return nfc(path), path


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
        if isinstance(source, Image.Image):
            deep_colour = _is_deep_colour(source)
            pixels = _upright_pixels(source)
        else:
            with _open(io.BytesIO(source) if isinstance(source, bytes | bytearray) else source) as image:
                deep_colour = _is_deep_colour(image)
                pixels = _upright_pixels(image)
    except Exception as error:
        raise DataError(f"Cannot read the {what}: {_reason(error)}.") from error
    return _as_rgb(pixels, deep_colour, bit_depth, what)


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


def as_uint8(image: np.ndarray) -> np.ndarray:
    """Convert an image, uint8 or float in [0, 1], to uint8 for display."""
    return image if image.dtype == np.uint8 else (image * 255).round().astype(np.uint8)


def read_mask(path: str | Path, reading: MaskReading = NOT_ZERO) -> NDArray[np.bool_]:
    """Return the mask as (H, W) bool: True where `reading` marks a pixel; the file's own EXIF rotation is applied.

    The orientation of `reading` comes after that.

    Raises:
        DataError: The file is missing, truncated or cannot be decoded.
    """
    try:
        with Path(path).open("rb") as file, _open(file) as image:
            channels = _mask_channels(image)
    except Exception as error:
        raise _unreadable("mask", Path(path), error) from error
    return _turn(reading.marked(channels.high, channels.low), reading.orientation)


def _mask_channels(image: Image.Image) -> MaskChannels:
    """Return the channels of the upright pixels of an open mask file."""
    pixels = _upright_pixels(image)
    indices = _turn(np.asarray(image), _orientation(image)) if image.mode == "P" else None
    return MaskChannels.of(pixels, indices=indices, opaque=not _has_alpha(image))


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
        array = (array.astype(np.float32) / top).astype(np.float32)
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


def probe(path: Path, as_mask: bool = False) -> ImageFacts:
    """Hash and fully decode an image file and return its facts, cached in this process by path, size and times.

    With `as_mask` the facts have the content of the mask.
    """
    try:
        status = path.stat()
    except OSError as error:
        return ImageFacts(0, 0, 0, 0, "", "", _reason(error))
    return _probe(str(path), status.st_size, (status.st_mtime_ns, status.st_ctime_ns), as_mask)


def probe_all(paths: Sequence[Path], as_masks: bool = False) -> list[ImageFacts]:
    """Return `probe` of each path, in order; Pillow decodes outside the interpreter lock, so threads help."""
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(partial(probe, as_mask=as_masks), paths))


@lru_cache(maxsize=MAX_REMEMBERED)
def _probe(path: str, size: int, times: tuple[int, int], as_mask: bool) -> ImageFacts:
    del size, times  # only part of the key: a changed file is read again, also one that was copied with its date
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return ImageFacts(0, 0, 0, 0, "", "", _reason(error))
    sha256 = hashlib.sha256(data).hexdigest()
    if not data:
        return ImageFacts(0, 0, 0, 0, "", sha256, "empty file (0 bytes)")
    width = height = raw_width = raw_height = 0
    mode, mask = "", None
    try:
        with _open(io.BytesIO(data)) as image:
            mode, (raw_width, raw_height) = image.mode, image.size
            width, height = raw_width, raw_height
            deep_colour = _is_deep_colour(image)  # before EXIF is asked for, which decodes a PNG
            early = _orientation(image)
            if not as_mask:
                image.draft(image.mode, (1, 1))  # JPEG only: every byte of the stream, an eighth of the arithmetic
            image.load()
            orientation = early if image.format == "TIFF" else _orientation(image)
            if image.format == "TIFF":  # Pillow turns these by itself and reports the turned size from the start
                raw_width, raw_height = (height, width) if early >= 5 else (width, height)
            elif orientation >= 5:
                width, height = raw_height, raw_width
            if image.format == "PNG" and b"IEND" not in data:
                raise OSError("image file is truncated (its end is missing)")
            if as_mask:
                mask = _mask_channels(image).content(lossy=image.format in ("JPEG", "MPO"))
            elif not _is_plain(image.mode):
                to_rgb_array(_upright_pixels(image))  # ranges of 32-bit sources, modes without an RGB meaning
            largest = _largest(image, deep_colour)
            grey_values, pages = _grey_values(image), _pages(image)
    except Exception as error:
        return ImageFacts(width, height, raw_width, raw_height, mode, sha256, _reason(error))
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


def _is_deep_colour(image: Image.Image) -> bool:
    """Return whether a file that is not decoded yet has 16 bits a colour, which Pillow reduces to 8."""
    stored = getattr(image, "tile", ())  # codec, extents, offset and raw mode of each part
    deep = (";16B", ";16L", ";16N")  # by byte order; BGR;16 has 16 bits for all three colours
    return any(kind in str(tile[3]) for tile in stored for kind in deep) and image.mode in ("LA", "RGB", "RGBA")


def _largest(image: Image.Image, deep_colour: bool) -> int | None:
    """Return the largest value of a decoded image of more than 8 bits as `ImageFacts` has it."""
    if deep_colour:
        return int(np.asarray(image)[..., : 1 if image.mode == "LA" else 3].max()) * 256 + 255
    if not image.mode.startswith("I"):
        return None
    return int(np.asarray(image).max())


def _pages(image: Image.Image) -> int:
    """Return the number of pages of a TIFF, or of pictures of an animation; 1 where the later ones are damaged."""
    if image.format not in ("TIFF", "PNG", "WEBP"):  # phones hide a second picture in a JPEG
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as error:
        logger.debug("Pages cannot be counted: %r", error)
        return 1


def _grey_values(image: Image.Image) -> int:
    """Return the number of grey values of a decoded image as `ImageFacts` has it."""
    if image.format in ("JPEG", "MPO") or image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        return 0
    if image.mode in ("P", "PA", "LA"):
        image = image.convert("RGB")
    colours = [colour for _, colour in image.getcolors(2) or []]
    values = [tuple(colour[:3]) if isinstance(colour, tuple) else (colour,) * 3 for colour in colours]
    if len(values) == 2 and not ((0, 0, 0) in values and all(len(set(value)) == 1 for value in values)):
        return 0
    return len(values)


def _open(file: IO[bytes]) -> Image.Image:
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    return Image.open(file)


def _read(path: Path) -> tuple[NDArray, bool, bool]:
    """Return the upright pixels of a file, (H, W) or (H, W, C), and whether it has alpha, and 16 bits a colour."""
    try:
        with path.open("rb") as file, _open(file) as image:
            deep_colour = _is_deep_colour(image)
            return _upright_pixels(image), _has_alpha(image), deep_colour
    except Exception as error:
        raise _unreadable("image", path, error) from error


def _unreadable(what: str, path: Path, error: Exception) -> DataError:
    """Return the error for what a decoder raised, which may be anything: OSError, SyntaxError, struct.error."""
    return DataError(f"Cannot read the {what} {path}: {_reason(error)}. Replace or remove the file.")


def _is_plain(mode: str) -> bool:
    return mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr") or mode.startswith("I;16")


def _upright_pixels(image: Image.Image) -> NDArray:
    """Return (H, W) or (H, W, 3 or 4) pixels, turned as EXIF says; grey sources keep their depth."""
    image.load()
    orientation = _orientation(image)  # after load: a PNG may carry it behind its pixels, a TIFF is turned already
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
        pixels = np.asarray(image.convert("RGBA" if _has_alpha(image) else "RGB"))
    return _turn(pixels, orientation)


def _turn(pixels: NDArray, orientation: int) -> NDArray:
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


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception as error:  # a damaged EXIF block does not make the picture unusable
        logger.debug("EXIF cannot be read: %r", error)
        return 1
    return value if value in range(1, 9) else 1


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or (image.mode == "P" and "transparency" in image.info)


@cache
def _log_alpha(folder: Path) -> None:
    logger.info("Images in %s have an alpha channel: it is dropped, the colours beneath are used.", folder)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image, or cut off or damaged at its start"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
