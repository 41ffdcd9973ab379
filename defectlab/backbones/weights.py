"""Search for weights files and verification of their hashes. Needs no torch."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from defectlab.backbones import weights_manifest
from defectlab.backbones.registry import DEFAULT
from defectlab.backbones.weights_lookup import named_entry
from defectlab.backbones.weights_manifest import WeightsEntry
from defectlab.utils import paths
from defectlab_runtime.errors import WeightsError, did_you_mean

logger = logging.getLogger(__name__)

SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class WeightsInfo:
    """Origin of a backbone's weights, as stored in the record of a run.

    `source` is the file as the user gave it, 'random(seed=42)', or a description where there is no file; `sha256` is
    that of the file's bytes, or of the tensors (`weights_sha256`) without a file; `kind` is 'file', 'random', 'module'.
    """

    source: str
    path: Path | None
    sha256: str
    kind: str


@dataclass(frozen=True)
class WeightsStatus:
    """One row of `defectlab weights list`.

    `state`: 'verified' (hash as known), 'changed' (another hash), 'unrecorded' (present, no hash known), 'absent'.
    """

    file: str
    name: str | None
    path: Path | None
    state: str
    sha256: str | None = None
    expected: str | None = None
    licence: str | None = None
    address: str = ""
    description: str = ""

    @property
    def present(self) -> bool:
        """Whether the file is in one of the weights folders."""
        return self.path is not None


def find_weights(name: str, weights: str | Path | None = None) -> Path:
    """Return the weights file for backbone `name`.

    A given `weights` is looked for as a path (from the working directory, then the project root), then in `weights/`,
    then in `DEFECTLAB_WEIGHTS`. Without one each folder is searched for `<name>.pth`, `.pt`, `.safetensors`, then for
    the file names of the manifest; the first wins and the log says so. Last of all comes the installed package that
    brings the weights, where there is one.

    Raises:
        WeightsError: Nothing found; says where it looked and what to run.

    """
    if weights is not None:
        return _find_given(name, Path(weights).expanduser())
    candidates = [f"{name}{suffix}" for suffix in SUFFIXES]
    candidates += [entry.file for entry in weights_manifest.entries_for(name) if entry.file not in candidates]
    folders = paths.weights_dirs()
    found = [folder / file for folder in folders for file in candidates if (folder / file).is_file()]
    if not found:
        packaged = weights_manifest.packaged_entry(name)
        found = [path for path in [packaged and packaged.installed_path] if path]
    if not found:
        raise WeightsError(
            _missing(
                name, f"No weights for backbone '{name}'.", [f / f"{name}{{{','.join(SUFFIXES)}}}" for f in folders]
            )
        )
    if len(found) > 1:
        others = ", ".join(str(path) for path in found[1:])
        logger.info("Weights for %s: %s (first in search order; also there: %s)", name, found[0], others)
    else:
        logger.info("Weights for %s: %s (found by name)", name, found[0])
    return found[0]


def check_on_record(path: Path) -> None:
    """Compare a file that was imported, downloaded or installed with the hash on record for it.

    Raises:
        WeightsError: It has another content.
    """
    folder = path.absolute().parent
    if folder in {known.absolute() for known in paths.weights_dirs()}:
        entries: Iterable[WeightsEntry] = weights_manifest.entries_in(folder)
        fix = f"Copy it again, or put the new file on record: `{paths.program()} weights import {path} --overwrite`"
    else:
        entries = [entry for entry in weights_manifest.known_entries() if entry.installed_path == path.absolute()]
        fix = f"Install {', '.join(str(entry.distribution) for entry in entries)} again"
    for entry in entries:
        if entry.file == path.name and not entry.fits_content(sha256 := weights_manifest.file_sha256(path)):
            raise WeightsError(
                f"{path} is not the file on record: its sha256 is {sha256}, not {entry.expected}. It is damaged or was "
                f"replaced. {fix}. verify=False takes it as it is."
            )


def _find_given(name: str, weights: Path) -> Path:
    looked = [weights] if weights.is_absolute() else [Path.cwd() / weights, paths.resolve(weights)]
    if not weights.is_absolute():
        looked += [folder / weights for folder in paths.weights_dirs()]
        # A run's record names a file that came by pip by its bare name.
        packaged = weights_manifest.packaged_entry(str(weights))
        looked += [path for path in [packaged and packaged.installed_path] if path]
    for path in looked:
        if path.is_file():
            return path
    folder = next((path for path in looked if path.is_dir()), None)
    if folder is not None:
        inside = sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES)
        raise WeightsError(f"{folder} is a folder, not a weights file. It holds: {', '.join(inside) or 'no weights'}.")
    near = [file.name for path in looked if path.parent.is_dir() for file in path.parent.iterdir()]
    raise WeightsError(_missing(name, f"No weights file '{weights}'.{did_you_mean(weights.name, near)}", looked))


def _missing(name: str, what: str, looked: Iterable[Path]) -> str:
    places = "\n".join(f"  {path}" for path in dict.fromkeys(looked))
    if packaged := weights_manifest.packaged_entry(name):
        return f"{what}\nLooked for:\n{places}\n{packaged.how_to_install}."
    import_file = f"`{paths.program()} weights import FILE --name {name}`"
    entry = named_entry(name)
    if entry is not None and entry.url is not None:
        fix = f"Run `{paths.program()} weights get {name}` (downloads), or {import_file} for a file that you have"
    elif entry is not None and entry.source is not None:
        fix = f"They are gated: accept the licence and fetch the file at {entry.source}, then run {import_file}"
    else:
        fix = f"No public weights of {name} are known. For a file that you have: {import_file}"
    return (
        f"{what}\nLooked for:\n{places}\n{fix}; or take `{DEFAULT}`, whose weights come with DefectLab; or ask for "
        'random weights by name: weights="random" (command line: --backbone.weights random).'
    )


def list_weights() -> list[WeightsStatus]:
    """Return the status of every known weights file, present or not, then of local files in no manifest."""
    entries = weights_manifest.all_entries()
    rows = [_status(entry) for entry in entries]
    known = {entry.file for entry in entries}
    for folder in paths.weights_dirs():
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix in SUFFIXES and path.name not in known:
                known.add(path.name)
                rows.append(_unlisted(path))
    return rows


def verify(names: Iterable[str] | None = None) -> list[WeightsStatus]:
    """Hash the weights files that are present (or those named) and compare them with the manifest.

    Raises:
        WeightsError: A name that is neither a file, an entry nor a backbone in the manifest.

    """
    rows = list_weights()
    if names is None:
        return [row for row in rows if row.present]
    chosen: list[WeightsStatus] = []
    for name in names:
        files = {entry.file for entry in weights_manifest.entries_for(name)}
        matching = [row for row in rows if row.file in files or name in {row.file, Path(row.file).stem}]
        if not matching:
            raise WeightsError(f"No weights '{name}'.{did_you_mean(name, [row.file for row in rows])}")
        chosen += [row for row in matching if row not in chosen]
    return chosen


def _status(entry: WeightsEntry) -> WeightsStatus:
    folders = paths.weights_dirs()
    path = next((folder / entry.file for folder in folders if (folder / entry.file).is_file()), None)
    path = path or entry.installed_path
    sha256 = weights_manifest.file_sha256(path) if path else None
    if sha256 is None:
        state = "absent"
    elif entry.expected is None:
        state = "unrecorded"
    else:
        state = "verified" if entry.fits_content(sha256) else "changed"
    return WeightsStatus(
        file=entry.file,
        name=entry.name,
        path=path,
        state=state,
        sha256=sha256,
        expected=entry.expected,
        licence=entry.licence,
        address=entry.address,
        description=entry.description,
    )


def _unlisted(path: Path) -> WeightsStatus:
    sha256 = weights_manifest.file_sha256(path)
    entry, how = weights_manifest.entry_of_file(path, sha256)
    if entry is None:
        return WeightsStatus(path.name, None, path, "unrecorded", sha256, description=how)
    return WeightsStatus(
        file=path.name,
        name=entry.name,
        path=path,
        state="verified",
        sha256=sha256,
        expected=entry.expected,
        licence=entry.licence,
        description=f"{entry.description} (recognised by {how})",
    )
