"""Finding the image files that a file, a folder, a glob or a list of these selects."""

import glob
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from defectlab.data.image_facts import probe, probe_all
from defectlab.data.manifest.mask_recognition import is_mostly_two_valued, masks_among
from defectlab.utils import paths
from defectlab_runtime.errors import DataError
from defectlab_runtime.image_files import IMAGE_EXTENSIONS, list_images, other_pictures

logger = logging.getLogger(__name__)

MAX_NAMED = 5  # files in one line of the log
MAX_LINES = 20  # files in a list
KNOWN = f"known are {', '.join(sorted(IMAGE_EXTENSIONS))}"


def find_images(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the image files of a file, a folder, a glob, or several of these, without duplicates.

    A folder contributes all images below it except masks: those in a folder with the name of a folder of masks, and
    those that lie beside their image (`masks_among`), unless they have the many grey values of photographs. In a glob,
    folders that exist are taken by their names, so that brackets in these are no pattern.

    Raises:
        DataError: Nothing is there, it holds no images, or the source is empty.
    """
    if not isinstance(source, str | Path):
        if not source:
            raise DataError("No images: the list of sources is empty.")
        return list(dict.fromkeys(path for part in source for path in find_images(part)))
    if not str(source).strip():
        raise DataError("The source is empty: give a file, a folder or a glob ('.' for the project root).")
    path = paths.resolve(source)
    if path.is_dir():
        found = _without_masks(path, list_images(path))
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


def _without_masks(folder: Path, files: list[Path]) -> list[Path]:
    """Return the files of a folder without masks: those called or placed as one that are mostly two-valued."""
    called = [one.path for one in masks_among(folder, folder, files, probe)]
    facts = zip(called, probe_all(called), strict=True)
    masks = {path for path, fact in facts if fact.problem or is_mostly_two_valued(path, fact)}
    if masks:
        example = min(masks).relative_to(folder).as_posix()
        logger.warning(
            "%d of %d pictures below %s are taken for masks and left out, such as %s; given by name they are scored",
            len(masks), len(files), folder, example,
        )  # fmt: skip
    return [file for file in files if file not in masks]


def _glob(pattern: Path) -> list[Path]:
    """Return the matches of an absolute pattern, sorted; folders that exist under their names are no pattern."""
    literal, *rest = pattern.parts
    while rest and Path(literal, rest[0]).is_dir():
        literal = str(Path(literal, rest.pop(0)))
    found = glob.glob(os.path.join(glob.escape(literal), *rest), recursive=True)  # noqa: PTH207, PTH118 - absolute
    return [Path(match) for match in sorted(found)]


def find_readable_images(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return what `find_images` does without the files that cannot be read, which are named in the log.

    Raises:
        DataError: Nothing is there, or none can be read.
    """
    files = find_images(source)
    problems = unreadable_files(files)
    if len(problems) == len(files):
        raise DataError("None of these images can be read:\n" + list_problems(problems))
    if problems:
        logger.warning("%d images cannot be read and are left out:\n%s", len(problems), list_problems(problems))
    return [file for file in files if file not in problems]


def unreadable_files(files: Sequence[Path], *, strict: bool = False) -> dict[Path, str]:
    """Return the reason of each image file that cannot be read, and warn of files of several pages.

    Raises:
        DataError: With `strict`, some cannot be read; names them.
    """
    found = dict(zip(files, probe_all(files), strict=True))
    if pages := [f"{paths.relative(file)} ({facts.pages})" for file, facts in found.items() if facts.pages > 1]:
        more = f" and {len(pages) - MAX_NAMED} more" if len(pages) > MAX_NAMED else ""
        logger.warning("Only the first of several pages is scored: %s%s", ", ".join(pages[:MAX_NAMED]), more)
    problems = {file: facts.problem for file, facts in found.items() if facts.problem}
    if strict and problems:
        raise DataError("These images cannot be read; mend or remove them:\n" + list_problems(problems))
    return problems


def list_problems(problems: Mapping[Path, str]) -> str:
    """Return a line for each file with its reason, of very many the first `MAX_LINES`."""
    lines = [f"  {paths.relative(file)}: {reason}" for file, reason in problems.items()]
    more = [f"  ... and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    return "\n".join(lines[:MAX_LINES] + more)


def common_folder(files: Sequence[Path]) -> Path:
    """Return the deepest folder that contains all the files.

    >>> common_folder([Path("/a/b/c/1.png"), Path("/a/b/2.png")]).as_posix()
    '/a/b'
    """
    shared = files[0].parent
    while not all(file.is_relative_to(shared) for file in files):
        shared = shared.parent
    return shared
