"""Finding the image files that a file, a folder, a glob or a list of these selects."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from defectlab.data.image_facts import probe, probe_all
from defectlab.data.manifest.mask_recognition import is_mostly_two_valued, masks_among
from defectlab.utils import paths
from defectlab_runtime import image_sources
from defectlab_runtime.errors import DataError
from defectlab_runtime.image_files import list_images

logger = logging.getLogger(__name__)

MAX_NAMED = 5  # files in one line of the log
MAX_LINES = 20  # files in a list


def find_images(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the image files of a file, a folder, a glob, or several of these, without duplicates.

    Relative paths are taken from the project root. A folder contributes all images below it except masks: those in a
    folder with the name of a folder of masks, and those that lie beside their image (`masks_among`), unless they have
    the many grey values of photographs. In a glob, folders that exist are taken by their names.

    Raises:
        DataError: Nothing is there, it holds no images, or the source is empty.
    """
    return image_sources.find_images(source, paths.resolve, lambda folder: _without_masks(folder, list_images(folder)))


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
