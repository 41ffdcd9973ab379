"""Finding image files below a folder, by the endings of their names."""

import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from defectlab_runtime.errors import DataError

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pbm", ".pgm", ".ppm", ".pnm", ".pxm")

# Pictures of a kind that is not read, as users may take them for images that are.
OTHER_PICTURES = (
    *(".gif", ".jfif", ".jpe", ".jp2", ".j2k", ".jxl", ".jxr", ".heic", ".heif", ".avif", ".tga", ".psd", ".svg"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".exr", ".hdr", ".dcm", ".fits", ".npy"),
)

# Thumbnails and rubbish that network drives, Windows and macOS put beside the images.
SYSTEM_FOLDERS = (
    *("@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "lost+found"),
    "system volume information",
)


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

    Raises:
        DataError: A folder is there but cannot be listed: its images would be missing in silence.
    """
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_refuse_unlisted):
        status = os.stat(parent)  # noqa: PTH116 - os.walk gives strings
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(filter(is_user_folder, folders))
        yield Path(parent), [name for name in files if not name.startswith(".")]


def _refuse_unlisted(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):  # what is not there has no images
        raise DataError(
            f"The folder {error.filename} cannot be listed ({error.strerror}), so its images would be missing. Make it "
            "readable (chmod u+rX), or move it out of the dataset."
        ) from error


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
