"""Tables of public datasets: the package's own, and the user's beside the downloaded data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from defectlab.utils.files import write_json
from defectlab.utils.json_files import read_json
from defectlab_runtime import names
from defectlab_runtime.errors import DataError, unknown_name

TABLE = Path(__file__).with_name("public.json")
OWN_TABLE = "downloads.json"  # in the destination: wins over the package's, and keeps what was seen
LAYOUTS = ("mvtec", "visa")


@dataclass(frozen=True)
class PublicDataset:
    """A public dataset: archive, address, content hash (None if unknown) and layout of the archive.

    `sha256_from` names the origin of the hash.
    """

    name: str
    title: str
    file: str
    url: str | None
    sha256: str | None
    sha256_from: str | None
    layout: str
    licence: str = "unknown"
    bytes: str = "unknown"


def find_dataset(name: str, destination: Path) -> PublicDataset:
    """Return a dataset by name, from the destination's own table if it is there, else from the package's.

    Raises:
        DataError: It is in neither, or the table cannot be read.
    """
    known = {**_read(TABLE), **_read(destination / OWN_TABLE)}
    if name not in known:
        raise DataError(unknown_name("dataset", name, known))
    return known[name]


def record_dataset(dataset: PublicDataset, destination: Path) -> None:
    """Add or replace a dataset in the destination's own table."""
    known = {**_read(destination / OWN_TABLE), dataset.name: dataset}
    write_json(destination / OWN_TABLE, {"datasets": [asdict(one) for one in known.values()]})


def _read(file: Path) -> dict[str, PublicDataset]:
    if not file.is_file():
        return {}
    try:
        entries: list[Mapping[str, Any]] = read_json(file)["datasets"]
        known = {item.name for item in fields(PublicDataset)}
        found = [PublicDataset(**{key: value for key, value in entry.items() if key in known}) for entry in entries]
        for one in found:
            _check(one)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is no table of datasets: {error}. Mend it or remove it.") from error
    return {one.name: one for one in found}


def _check(dataset: PublicDataset) -> None:
    for item in fields(PublicDataset):
        value = getattr(dataset, item.name)
        if not isinstance(value, str) and not (value is None and item.name in ("url", "sha256", "sha256_from")):
            raise ValueError(f"{item.name} is {value!r}, not text")
    if dataset.layout not in LAYOUTS:
        raise ValueError(unknown_name("layout", dataset.layout, LAYOUTS))
    if names.path(dataset.file) != dataset.file or dataset.file == OWN_TABLE:
        raise ValueError(f"file is {dataset.file!r}, not the name of a file in the folder")
