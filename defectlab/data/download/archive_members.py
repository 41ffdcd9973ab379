"""Members of an archive from an untrusted source, and which of their names may become files and folders."""

import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

from defectlab_runtime import names

MAX_NAME_BYTES = 255  # of a file or folder, on nearly every file system
MAX_PATH_BYTES = 1024  # of the whole name in the archive: what macOS allows a path


class Member(NamedTuple):
    """A file or folder in an archive.

    Attributes:
        name: As `clean_name` returns it.
        size: Bytes of a file, unpacked; None for a folder.
        open: Returns a context manager of a stream with the file's content.
    """

    name: str
    size: int | None
    open: Callable[[], Any]


class RefusedError(Exception):
    """Raised for what is wrong in an archive; the reader, which knows the file, makes a `DataError` of it."""


def clean_name(raw: str) -> str:
    """Return a member's name as a relative path without `./` before it or `/` behind it; "" for the top folder.

    Raises:
        RefusedError: It could lead out of the folder that it is unpacked to, or cannot be made on every system.
    """
    name = raw
    while name.startswith("./"):
        name = name[2:]
    name = name.removesuffix("/")
    if name in ("", ".") and raw in (".", "./"):
        return ""
    why = _problem(name)
    if why:
        raise RefusedError(f"it holds {shown(raw)}, {why}")
    return name


def shown(name: str) -> str:
    """Return a name for a message: quoted, with escapes, not longer than 100 characters."""
    return ascii(name) if len(name) <= 100 else f"{name[:80]!a}... ({len(name):,} characters)"


class UniqueNames:
    """All names of an archive so far; two that some file system takes for one are refused."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, bool]] = {}
        self._folders: set[str] = set()

    def add(self, name: str, *, is_folder: bool) -> None:
        """Add a clean name and the folders it lies in.

        Raises:
            RefusedError: The archive holds it twice, as file and as folder, or in another case or Unicode form.
        """
        if not is_folder:
            self._add(name, is_folder=False)
            name = name.rpartition("/")[0]
        while name and name not in self._folders:
            self._add(name, is_folder=True)
            self._folders.add(name)
            name = name.rpartition("/")[0]

    def _add(self, name: str, *, is_folder: bool) -> None:
        key = names.alike(name)
        if key not in self._seen:
            self._seen[key] = (name, is_folder)
            return
        known, known_as_folder = self._seen[key]
        if known != name:
            why = f"{shown(known)} and {shown(name)}, which are one name on some file systems"
        else:
            why = f"{shown(name)} {'twice' if known_as_folder == is_folder else 'as a file and as a folder'}"
        raise RefusedError(f"it holds {why}")


def _problem(name: str) -> str:
    parts = name.split("/")
    if not name.isprintable():  # which is fast, and false of some harmless names too
        kinds = {unicodedata.category(letter) for letter in name}
        if "Cs" in kinds:
            return "a name that is no UTF-8"
        if "Cc" in kinds:
            return "a name with control characters"
    if "\\" in name:
        return "a name with a backslash"
    if name.startswith("/") or name[1:2] == ":":
        return "an absolute name"
    if any(part in ("", ".", "..") for part in parts):
        return "a name with an empty part, '.' or '..'"
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return f"a name of more than {MAX_NAME_BYTES} bytes"
    if len(name.encode()) > MAX_PATH_BYTES:
        return f"a path of more than {MAX_PATH_BYTES:,} bytes"
    return ""
