"""Files that are written whole or not at all, and tables as CSV."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from defectlab_runtime import names

ESCAPED = "names_escaped"  # column of a CSV that says in which rows `names.from_csv` finds the true names


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it replaces `path` if the block ends without an error.

    The folders on the way are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name if len(os.fsencode(path.name)) <= names.NAME_BYTES else names.short_hash(path.name)
    partial = path.with_name(f".{name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):  # says no more than the error before it
            partial.unlink(missing_ok=True)


def csv_rows(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Return the lines of a CSV, the header first: None is an empty cell, and text is escaped (`names.csv`).

    A table in which anything is escaped has one more column, `ESCAPED`, with "yes" in those rows: what an earlier
    version or a person wrote has none, and is read as it stands.
    """
    true = [list(header), *map(list, rows)]
    written = [list(map(names.csv, row)) for row in true]
    escaped = [row != before for row, before in zip(written, true, strict=True)]
    if any(escaped):
        written[0].append(ESCAPED)
        for row, changed in zip(written[1:], escaped[1:], strict=True):
            row.append("yes" if changed else None)
    return written


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a table as CSV, whole or not at all; see `csv_rows`."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(csv_rows(header, rows))
    return path
