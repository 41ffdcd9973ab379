"""File utilities: atomic writing, hashing, and memory-mapped arrays."""

import csv
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from defectlab.utils.disk import NO_ROOM, disk_errors
from defectlab.utils.folders import make_parents
from defectlab_runtime import files, names
from defectlab_runtime.files import ESCAPED, csv_rows

_ESCAPED_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it replaces `path` if the block ends without an error.

    Raises:
        DiskError: The disk is full, read-only, forbidden or broken; `path` is as it was.
        InputError: It is to lie in a run's folder that another process has taken or removed.
    """
    with disk_errors(path):
        make_parents(path)
        with files.replacing(path) as partial:
            yield partial


def is_writable(folder: Path) -> bool:
    """Return whether files can be created in a folder, which need not exist yet."""
    place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    return place.is_dir() and os.access(place, os.W_OK)


def new_memmap(path: Path, shape: tuple[int, ...], dtype: Any) -> Any:
    """Create a writable memory-mapped .npy file, with its disk space allocated in advance where supported.

    If the disk is full while a mapped file is filled, the process is killed without a message (SIGBUS).

    Raises:
        DiskError: There is no room for it.
    """
    import numpy as np

    with disk_errors(path, math.prod(shape) * np.dtype(dtype).itemsize):
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if array.nbytes and hasattr(os, "posix_fallocate"):
            try:
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:  # a file system that cannot allocate in advance is no reason to stop
                if error.errno in NO_ROOM:
                    raise
        return array


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a table as CSV, atomically; see `csv_rows`."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(csv_rows(header, rows))
    return path


def read_csv(path: Path, encoding: str = "utf-8") -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV with the true names, without the column `ESCAPED` of `write_csv`.

    Empty lines are left out.

    Raises:
        csv.Error, UnicodeDecodeError: The file is damaged.
    """
    with path.open(newline="", encoding=encoding) as file:
        rows = [row for row in csv.reader(file) if row]
    if rows and ESCAPED in rows[0]:
        place = rows[0].index(ESCAPED)
        escaped = [True, *(row[place : place + 1] == ["yes"] for row in rows[1:])]
        rows = [row[:place] + row[place + 1 :] for row in rows]
        rows = [list(map(names.from_csv, row)) if yes else row for row, yes in zip(rows, escaped, strict=True)]
    return (rows[0], rows[1:]) if rows else ([], [])


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON atomically. NaN raises a ValueError: a missing number must be None."""
    content = json_content(data)
    with replacing(path) as partial:
        partial.write_bytes(content)


def json_content(data: Any, *, allow_nan: bool = False) -> bytes:
    """Return what `write_json` writes: NUL, which no path can hold and `read_json` refuses, becomes U+FFFD."""
    try:
        content = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=allow_nan).encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8, which JSON can hold only escaped
        content = json.dumps(data, indent=2, allow_nan=allow_nan).encode()
    return _ESCAPED_NUL.sub(rb"\1\\ufffd", content) + b"\n"


def replace_between(path: Path, begin: str, end: str, text: str) -> None:
    """Replace the text between two markers of a file, each on its own line; the rest of the file is unchanged.

    Raises:
        ValueError: The file has not both markers, once each and in this order.
    """
    old = path.read_text(encoding="utf-8")
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise ValueError(f"{path} must have the markers {begin} and {end}, once each and in this order.")
    block = f"{begin}\n{text}\n{end}"
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    with replacing(path) as partial:
        partial.write_text(re.sub(pattern, lambda _: block, old, flags=re.DOTALL), encoding="utf-8")
