"""Images to score: files, folders, globs, arrays, pictures and bytes, found and read one at a time."""

import glob
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectlab_runtime.errors import DataError, InputError
from defectlab_runtime.image_files import IMAGE_EXTENSIONS, list_images, other_pictures
from defectlab_runtime.image_limits import max_pixels
from defectlab_runtime.images import decode_image, read_image, to_rgb_array

logger = logging.getLogger("defectlab.runtime")  # one logger, "defectlab", for runtime and toolkit

KNOWN = f"known are {', '.join(sorted(IMAGE_EXTENSIONS))}"

OnUnreadable = Callable[[str, str], None]
OneSource = str | Path | np.ndarray | bytes | IO[bytes] | Image.Image
Source = OneSource | Sequence[OneSource]
Pixels = NDArray[np.uint8] | NDArray[np.float32]


def find_images(
    source: str | Path | Sequence[str | Path],
    resolve: Callable[[str | Path], Path] = Path,
    in_folder: Callable[[Path], list[Path]] = list_images,
) -> list[Path]:
    """Return the image files of a file, a folder, a glob, or several of these, without duplicates.

    In a glob, folders that exist are taken by their names, so that brackets in these are no pattern.

    Args:
        source: What is looked for.
        resolve: Turns a source into a path; relative ones are taken from the working directory by default.
        in_folder: Which files of a folder count as images; all at any depth by default.

    Raises:
        DataError: Nothing is there, it holds no images, or the source is empty.
    """
    if not isinstance(source, str | Path):
        if not source:
            raise DataError("No images: the list of sources is empty.")
        return list(dict.fromkeys(path for part in source for path in find_images(part, resolve, in_folder)))
    if not str(source).strip():
        raise DataError("The source is empty: give a file, a folder or a glob ('.' for the whole of this folder).")
    path = resolve(source).absolute()
    if path.is_dir():
        found = in_folder(path)
        if others := other_pictures(path):
            logger.warning("Pictures of a kind that is not read, not scored: %s", "; ".join(others))
    elif path.is_file():
        if path.suffix.lower() not in IMAGE_EXTENSIONS:
            raise DataError(f"{path} is no image file; {KNOWN}.")
        found = [path]
    elif any(character in str(source) for character in "*?["):
        found = [match for match in _glob(path) if match.suffix.lower() in IMAGE_EXTENSIONS and match.is_file()]
    else:
        raise DataError(f"There is no file or folder {path}.")
    if not found:
        raise DataError(f"No images in {path}; {KNOWN}.")
    return found


def _glob(pattern: Path) -> list[Path]:
    """Return the matches of an absolute pattern, sorted; folders that exist under their names are no pattern."""
    literal, *rest = pattern.parts
    while rest and Path(literal, rest[0]).is_dir():
        literal = str(Path(literal, rest.pop(0)))
    found = glob.glob(os.path.join(glob.escape(literal), *rest), recursive=True)  # noqa: PTH207, PTH118 - absolute
    return [Path(match) for match in sorted(found)]


def common_folder(files: Sequence[Path]) -> Path:
    """Return the deepest folder that contains all the files.

    >>> common_folder([Path("/a/b/c/1.png"), Path("/a/b/2.png")]).as_posix()
    '/a/b'
    """
    shared = files[0].parent
    while not all(file.is_relative_to(shared) for file in files):
        shared = shared.parent
    return shared


def read_images(
    source: Any,
    on_unreadable: OnUnreadable | None = None,
    bit_depth: int | None = None,
    find: Callable[[Any], list[Path]] = find_images,
) -> Iterator[tuple[str | None, Pixels]]:
    """Read files, arrays and images; yield (path or None, (H, W, 3) pixels as `read_image` gives them).

    Args:
        source: As `ImageScorer.predict` takes it.
        on_unreadable: Called with the path and the reason of each file that cannot be read, instead of an error.
        bit_depth: Of values in arrays and files of 16 bits.
        find: Finds the image files of a path, a glob, or a list of these.

    Raises:
        InputError: An unusable source, or limit of pixels in the environment; nothing is read then.
    """
    max_pixels()
    given = [source] if isinstance(source, str | Path) or _is_image(source) else source
    if isinstance(source, np.ndarray) and source.ndim == 4:
        given = list(source)
    if not isinstance(given, Sequence) or not all(isinstance(part, str | Path) or _is_image(part) for part in given):
        wrong = source if not isinstance(given, Sequence) else next(
            part for part in given if not isinstance(part, str | Path) and not _is_image(part)
        )  # fmt: skip
        raise InputError(
            "predict takes a file, a folder, a glob, an array, a Pillow image, the bytes of an image file, a file open "
            f"in binary mode, or a list of these, got {type(wrong).__name__}."
        )
    # several paths at once: one given twice is scored once, and a missing one ends the work before any is scored
    at_once = on_unreadable is None and all(isinstance(part, str | Path) for part in given)
    for part in [given] if at_once else given:
        readable = [part] if _is_image(part) else files_of(part, on_unreadable, find)
        for one in readable:
            path = path_of(one)
            try:
                pixels = _pixels_of(one, bit_depth)
            except InputError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(path or f"an image given as {type(one).__name__}", str(error))
            else:
                yield path, pixels


def _is_image(source: Any) -> bool:
    """Whether it is one image, or several in one array, rather than where images lie."""
    in_memory = isinstance(source, np.ndarray | bytes | bytearray | Image.Image)
    return in_memory or (hasattr(source, "read") and not isinstance(source, io.TextIOBase))


def path_of(source: Any) -> str | None:
    """Return the path of a file, or of an open file that has one."""
    name = source if isinstance(source, Path) else getattr(source, "name", None)
    return str(name) if isinstance(name, str | Path) else None


def _pixels_of(source: Any, bit_depth: int | None) -> Pixels:
    if isinstance(source, Path):
        return read_image(source, bit_depth)
    return to_rgb_array(source, bit_depth) if isinstance(source, np.ndarray) else decode_image(source, bit_depth)


def files_of(source: Any, on_unreadable: OnUnreadable | None, find: Callable[[Any], list[Path]]) -> list[Path]:
    """Return the image files of a source; none, and `on_unreadable` is called, where a single path is gone."""
    try:
        return find(source)
    except InputError as error:
        if on_unreadable is None:
            raise
        on_unreadable(str(source), str(error))
        return []
