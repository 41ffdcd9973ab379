"""Implementation of `defectlab weights get`: download backbone weights on request."""

import logging
from dataclasses import replace
from pathlib import Path

from defectlab.backbones import weights_manifest
from defectlab.backbones.state_dicts import container_problem
from defectlab.backbones.weights import check_on_record
from defectlab.backbones.weights_lookup import named_entry
from defectlab.backbones.weights_manifest import WeightsEntry
from defectlab.utils import paths
from defectlab.utils.downloads import Progress, check_url, fetch
from defectlab_runtime.errors import WeightsError, did_you_mean

logger = logging.getLogger(__name__)


def get(name: str, *, base_url: str | None = None, progress: Progress | None = None) -> Path:
    """Download the weights `name` (entry, file or backbone) into `weights/` and return the file.

    An interrupted download is kept as `<file>.part` and continued. The file appears under its own
    name only once its sha256 agrees; its full sha256 is then recorded in `weights/manifest.json`. `base_url` is a
    mirror that holds the same file name; `progress(done, total)` counts bytes.

    Raises:
        WeightsError: Unknown name, no connection, or a file with another content.

    """
    if packaged := weights_manifest.packaged_entry(name):
        return _installed(packaged)
    entry = _entry(name)
    folder = paths.weights_dirs()[0]
    path = folder / entry.file
    if path.is_file():
        sha256 = weights_manifest.file_sha256(path)
        if entry.fits_content(sha256):
            logger.info("%s is there already (%s)", path, _verification(entry))
            return path
        logger.warning("%s is damaged (sha256 %s, not %s): downloading it again", path, sha256[:12], entry.expected)
    url = f"{base_url.rstrip('/')}/{entry.file}" if base_url else entry.url
    if url is None:
        raise WeightsError(entry.how_to_import)
    check_url(url, error=WeightsError, otherwise="For a file: `weights import FILE`.")
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    if entry.expected is None:
        part.unlink(missing_ok=True)  # without a checksum nothing would notice halves of two different files
    logger.info("Downloading %s (%s)", url, entry.licence or "licence unknown")
    fetch(url, part, progress, error=WeightsError, otherwise="run `defectlab weights import FILE`")
    sha256 = _check(entry, part, url)
    part.replace(path)
    logger.info("%s: %s, sha256 %s", path, _verification(entry), sha256)
    weights_manifest.record(replace(entry, sha256=sha256, source=url), folder)
    return path


def _installed(entry: WeightsEntry) -> Path:
    path = entry.installed_path
    if path is None:
        raise WeightsError(f"{entry.how_to_install}.")
    check_on_record(path)
    logger.info("%s is there already: %s, installed with %s", entry.name, path, entry.distribution)
    return path


def _entry(name: str) -> WeightsEntry:
    entry = named_entry(name)
    if entry is None:
        known = [e.name for e in weights_manifest.known_entries()]
        raise WeightsError(
            f"No weights '{name}' in the manifest.{did_you_mean(name, [*known, *(n.split('.')[0] for n in known)])} "
            f"Known: {', '.join(known)}, and every timm model that has public weights."
        )
    return entry


def _verification(entry: WeightsEntry) -> str:
    if entry.sha256:
        return "checksum verified"
    if entry.sha256_prefix:
        return f"verified against the published beginning of its checksum, {entry.sha256_prefix}"
    return "no checksum is published: trusted on first use and recorded"


def _check(entry: WeightsEntry, part: Path, url: str) -> str:
    """Validate the content of a download and return its sha256; delete the file and raise if it is wrong."""
    sha256 = weights_manifest.file_sha256(part)
    problem = None
    if not entry.fits_content(sha256):
        problem = f"has sha256 {sha256}, but the manifest says {entry.expected}"
    elif entry.expected is None:
        problem = container_problem(part, entry.file)
    if problem:
        part.unlink()
        raise WeightsError(
            f"{url} {problem}. Nothing was kept. Try again, another mirror (base_url), or import a file."
        )
    return sha256
