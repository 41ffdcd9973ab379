"""Atomic writing of samples to disk: built beside the destination, marked when complete, then renamed."""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectlab.utils.file_age import age_of
from defectlab.utils.json_files import read_json
from defectlab.utils.paths import resolve
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

MARKER = "sample.json"
LEFTOVER_AGE = 3600.0  # seconds; a build takes less than one minute


@dataclass(frozen=True)
class Identity:
    """Identity of a sample: every setting on which the sample's pixels depend."""

    name: str
    version: int
    seed: int
    options: Mapping[str, int]

    def record(self) -> dict[str, Any]:
        """Return the part of `sample.json` that is compared."""
        return {"name": self.name, "version": self.version, "seed": self.seed, "options": dict(self.options)}


@dataclass(frozen=True)
class Picture:
    """One image file of a sample: its path below the root, greys (H, W) or colours (H, W, 3), and its metadata."""

    path: str
    pixels: NDArray[np.uint8]
    about: Mapping[str, Any] | None = None


def find_complete(destination: Path, identity: Identity) -> bool:
    """Return whether the destination already holds this exact sample; False if it is missing or empty.

    Raises:
        InputError: Something else is there, or files of the sample are gone.
    """
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return False
    fix = "Fix: name another folder or remove this one."
    if not destination.is_dir():
        raise InputError(f"{destination} is a file; the sample '{identity.name}' needs a folder. {fix}")
    try:
        found = read_json(destination / MARKER)
        earlier, files = {key: found[key] for key in identity.record()}, found["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{destination} is not empty and is no built-in sample (no usable {MARKER}). {fix}") from None
    if earlier != identity.record():
        raise InputError(
            f"{destination} holds another sample ({_say(earlier)}); asked for was {_say(identity.record())}. {fix}"
        )
    gone = [name for name in files if not (destination / name).is_file()]
    if gone:
        raise InputError(
            f"{destination}: {len(gone)} of {len(files)} files of the sample are gone, e.g. {gone[0]}. "
            "Fix: remove the folder and make the sample again."
        )
    return True


def write_sample(
    destination: Path,
    identity: Identity,
    pictures: Iterable[Picture],
    sources: list[dict[str, str]],
    texts: Mapping[str, str] | None = None,
) -> Path:
    """Build the sample in a temporary folder beside `destination` and rename it there once complete.

    `texts` maps paths below the root to what is written there as text.

    Raises:
        InputError: The folder cannot be written, or something appeared at the destination meanwhile.
    """
    _sweep_leftovers(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent))
    except OSError as error:
        raise InputError(f"Cannot write the sample beside {destination}: {error}. Fix: name another folder.") from None
    try:
        partial.chmod(0o755)  # mkdtemp makes it readable by its owner only
        record = _write_files(partial, identity, pictures, sources, texts or {})
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        (partial / MARKER).write_text(text, encoding="utf-8", newline="\n")
        try:
            if destination.is_dir():
                destination.rmdir()  # an empty one, which Windows would not replace
            partial.rename(destination)
        except OSError as error:
            # Another process may have made the same sample meanwhile, which is as good.
            if not find_complete(destination, identity):
                raise InputError(f"Cannot move the finished sample to {destination}: {error}.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    logger.info("Made the sample '%s' in %s: %s", identity.name, destination, record["counts"])
    return destination


def sources(sample: str | Path) -> list[dict[str, str]]:
    """Return the origin and licence of all source material of a sample on disk.

    Raises:
        InputError: The folder holds no built-in sample.
    """
    marker = resolve(sample) / MARKER
    try:
        found: list[dict[str, str]] = read_json(marker)["sources"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{marker} is no record of a built-in sample. Fix: defectlab data sample NAME DEST") from None
    return found


def _write_files(
    root: Path,
    identity: Identity,
    pictures: Iterable[Picture],
    sources: list[dict[str, str]],
    texts: Mapping[str, str],
) -> dict[str, Any]:
    from PIL import Image

    digest = hashlib.sha256()
    counts: dict[str, int] = {}
    files: dict[str, Any] = {}
    for picture in pictures:
        path = root / picture.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.pixels).save(path, format="PNG", optimize=False, compress_level=6)
        # Pixels, not file bytes: another version of the PNG encoder is still the same sample.
        digest.update(f"{picture.path} {picture.pixels.shape} ".encode() + picture.pixels.tobytes())
        folder = picture.path.rsplit("/", 1)[0]
        counts[folder] = counts.get(folder, 0) + 1
        files[picture.path] = dict(picture.about or {})
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8", newline="\n")
        files[name] = {}
    return {
        **identity.record(),
        "counts": counts,
        "sources": sources,
        "pixels_sha256": digest.hexdigest(),
        "files": files,
    }


def _sweep_leftovers(destination: Path) -> None:
    """Remove old temporary folders of killed builds of this sample, recognised by `write_sample`'s names."""
    if not destination.parent.is_dir():
        return
    for leftover in destination.parent.iterdir():
        ours = leftover.name.startswith(f".{destination.name}.") and leftover.suffix == ".partial"
        if ours and leftover.is_dir() and age_of(leftover) > LEFTOVER_AGE:
            logger.info("Removed %s, left by a build that did not finish", leftover)
            shutil.rmtree(leftover, ignore_errors=True)


def _say(identity: Mapping[str, Any]) -> str:
    options = "".join(f", {key} {value}" for key, value in identity["options"].items())
    return f"'{identity['name']}' version {identity['version']}, seed {identity['seed']}{options}"
