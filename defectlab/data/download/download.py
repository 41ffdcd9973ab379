"""`defectlab data download`: fetch a public dataset from the network or a local archive into a known layout."""

import errno
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from defectlab.data.download.archives import move_folders, unpack
from defectlab.data.download.public_datasets import PublicDataset, find_dataset, record_dataset
from defectlab.data.download.scratch import scratch_folder
from defectlab.utils.disk import disk_errors
from defectlab.utils.downloads import Progress, check_url, fetch
from defectlab.utils.files import sha256_of
from defectlab_runtime.errors import DataError, OptionError

logger = logging.getLogger(__name__)


def download(
    name: str,
    destination: Path,
    *,
    categories: Sequence[str] = (),
    url: str | None = None,
    file: Path | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Fetch a dataset's archive, check it, and unpack each category to its own folder in `destination`.

    What was loaded of an archive is kept and continued. A hash is checked where one is known: the table's, for the
    table's own address, or `sha256`. Where none is known the file is trusted, and its hash is recorded in
    `downloads.json` and checked from then on. Nothing that is there is ever overwritten.

    Args:
        name: mvtec, visa, or one of the destination's own `downloads.json`.
        destination: Where the categories' folders go.
        categories: Which; none means all.
        url: Another address of the archive, such as a mirror.
        file: An archive that is here already; nothing is downloaded.
        sha256: What the archive's hash must be.
        progress: Called with (done, total) bytes of the download.

    Returns:
        The categories' folders.

    Raises:
        DataError: A category that is there already or is not in the archive, another content, no connection.
    """
    if url is not None and file is not None:
        raise OptionError("Give --url or --file, not both.")
    dataset = find_dataset(name, destination)
    if url is not None:  # another address is another file until its hash says otherwise
        check_url(url, error=DataError, otherwise="For a file: --file.")
        dataset = replace(dataset, url=url)
    if sha256 is not None:
        dataset = replace(dataset, sha256=sha256.lower(), sha256_from="given by the user")
    _refuse_to_overwrite(destination, categories)
    try:
        with disk_errors(destination):
            destination.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{destination} is a file or lies in one: name another folder with --destination.") from error
    archive = _archive(dataset, destination, file, progress)
    with disk_errors(destination), scratch_folder(destination) as scratch:
        made = unpack(archive, dataset.layout, scratch, categories)
        _refuse_to_overwrite(destination, [folder.name for folder in made])
        try:
            folders = move_folders(made, destination)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            raise DataError(f"Another process made a folder of that name: {error}. Nothing was moved.") from error
    logger.info("%s: %d categories in %s; licence %s", dataset.title, len(folders), destination, dataset.licence)
    return folders


def _refuse_to_overwrite(destination: Path, categories: Sequence[str]) -> None:
    there = [name for name in categories if os.path.lexists(destination / name)]
    if there:
        raise DataError(
            f"{destination} has {', '.join(there)} already, and nothing is overwritten: remove or rename the folder, "
            "or name the categories that are missing with --category."
        )


def _archive(dataset: PublicDataset, destination: Path, file: Path | None, progress: Progress | None) -> Path:
    """Return the dataset's archive, downloaded if needed and checked against its known hash."""
    if file is not None:
        if not file.is_file():
            raise DataError(f"There is no file {file}.")
        _check(dataset, file, destination, keep=True)
        return file
    archive = destination / dataset.file
    if archive.is_file():
        logger.info("%s is there already", archive)
        _check(dataset, archive, destination, keep=True)
        return archive
    if dataset.url is None:
        raise DataError(f"No address is known for {dataset.title}: give --url or --file.")
    free = shutil.disk_usage(destination).free
    logger.info("%.1f GB are free in %s; archive and images need about twice the archive", free / 1e9, destination)
    part = archive.with_name(f"{archive.name}.part")
    if dataset.sha256 is None:
        part.unlink(missing_ok=True)  # without a hash nothing would notice halves of two different files
    logger.info("Downloading %s (%s), %s; licence %s", dataset.url, dataset.title, dataset.bytes, dataset.licence)
    fetch(dataset.url, part, progress, error=DataError, otherwise="give it with --file")
    _check(dataset, part, destination, keep=False)
    part.replace(archive)
    return archive


def _check(dataset: PublicDataset, file: Path, destination: Path, *, keep: bool) -> None:
    """Check a file against the dataset's known hash, or record the file's hash if none is known."""
    try:
        found = sha256_of(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}.") from error
    if dataset.sha256 is None:
        logger.warning(
            "%s: no hash is known, so this file is trusted on first download; sha256 %s is recorded in %s",
            dataset.title, found, destination,
        )  # fmt: skip
        record_dataset(replace(dataset, sha256=found, sha256_from="the first download"), destination)
        return
    if found != dataset.sha256:
        if not keep:
            file.unlink()
        what = "It was left as it is" if keep else "Nothing was kept"
        raise DataError(
            f"{file.name} has sha256 {found}, not {dataset.sha256} ({dataset.sha256_from}). {what}. If you trust "
            f"this file, say so with --sha256 {found}."
        )
    logger.info("%s: sha256 agrees (%s)", file.name, dataset.sha256_from)
