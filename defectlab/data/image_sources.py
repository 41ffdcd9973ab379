"""Finding the image files that a file, a folder, a glob or a list of these selects."""

import glob
from collections.abc import Sequence
from pathlib import Path

from defectlab.data.images import IMAGE_EXTENSIONS, list_images
from defectlab.utils import paths
from defectlab.utils.errors import DataError


def find_images(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the image files of a file, a folder, a glob, or several of these, without duplicates.

    A folder contributes all images below it except masks in `ground_truth`, as in MVTec AD's layout.

    Raises:
        DataError: Nothing is there, or it holds no images.
    """
    if not isinstance(source, str | Path):
        return list(dict.fromkeys(path for part in source for path in find_images(part)))
    path = paths.resolve(source)
    if path.is_dir():
        found = [file for file in list_images(path) if "ground_truth" not in file.relative_to(path).parts]
    elif path.is_file():
        if path.suffix.lower() not in IMAGE_EXTENSIONS:
            raise DataError(f"{path} is no image file; known are {', '.join(sorted(IMAGE_EXTENSIONS))}.")
        found = [path]
    elif any(character in str(source) for character in "*?["):
        matches = (Path(match) for match in sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207 - takes absolute patterns
        found = [match for match in matches if match.suffix.lower() in IMAGE_EXTENSIONS and match.is_file()]
    else:
        raise DataError(f"There is no file or folder {path}.")
    if not found:
        raise DataError(f"No images in {path}; known are {', '.join(sorted(IMAGE_EXTENSIONS))}.")
    return found


def common_folder(files: Sequence[Path]) -> Path:
    """Return the deepest folder that contains all the files.

    >>> common_folder([Path("/a/b/c/1.png"), Path("/a/b/2.png")]).as_posix()
    '/a/b'
    """
    shared = files[0].parent
    while not all(file.is_relative_to(shared) for file in files):
        shared = shared.parent
    return shared
