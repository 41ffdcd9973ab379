"""The workbook as a file: one writer at a time, whole or as it was, nothing of a person's lost."""

import logging
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from defectlab import paths
from defectlab.errors import InputError
from defectlab.files import replacing
from defectlab.results.record import Run, find_runs
from defectlab.results.workbook.blocks import import_blocks
from defectlab.results.workbook.rows import FINISHED, GONE, IMPORTED, KEY, Row, row_of

if TYPE_CHECKING:
    from openpyxl import Workbook
    from openpyxl.worksheet.worksheet import Worksheet

logger = logging.getLogger(__name__)

LOCK_SECONDS = 120.0
RUNS, COMPARISON = "runs", "comparison"
# What openpyxl drops on loading without a word, by what it looks like in the file.
_DROPPED = {"text boxes or shapes": b"<xdr:sp>", "shapes": b"<xdr:sp ", "sparklines": b"sparklineGroup"}


@dataclass(frozen=True)
class Outcome:
    """What an update did: `written` is False where the file could not be replaced, `rows` are all rows."""

    path: Path
    written: bool
    rows: list[Row]
    pruned: int = 0


def update_workbook(run: Run | None = None, *, imported: Sequence[Row] = (), prune: bool = False) -> Outcome:
    """Bring the workbook up to date with all records: this run, those under `results/`, those it names itself.

    A row whose record is gone stays and says so, unless `prune`. If the file cannot be replaced at this moment (it is
    open in Excel, another writer holds it, the disk is full), the log says so and the next update brings the row.
    """
    path = paths.workbook().resolve()  # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_name(f".{path.name}.pending")
    if run is not None:
        with waiting.open("a", encoding="utf-8") as file:
            file.write(f"{run.folder.absolute()}\n")
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS):
            return _update(path, waiting, run, imported, prune)
    except (OSError, Timeout) as error:
        reason = "another process is writing it" if isinstance(error, Timeout) else str(error)
        logger.warning("%s could not be written (%s): its rows come in with the next write", path.name, reason)
        return Outcome(path, False, [])


def read_workbook(path: str | Path | None = None) -> list[Row]:
    """Return the rows of the `runs` sheet, typed; empty where there is no workbook yet.

    Raises:
        InputError: The file is no workbook.
    """
    from defectlab.results.workbook.sheets import read_runs

    path = paths.workbook() if path is None else paths.resolve(path)
    if not path.is_file() or not path.stat().st_size:
        return []
    book = _load(path)
    sheet = _find(book, RUNS)
    return [] if sheet is None else list(read_runs(sheet).values())


def imported_rows(file: str | Path, dataset: str | None = None) -> list[Row]:
    """Return the blocks of a hand-kept workbook as rows, from every sheet that has any but our own.

    Raises:
        InputError: No such file, no workbook, no block, or a value that is no metric.
    """
    from defectlab.results.workbook.sheets import read_cells

    path = Path(file) if Path(file).is_file() else paths.resolve(file)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    book = _load(path, values=True)
    ours = {sheet.title for sheet in (_find(book, RUNS), _find(book, COMPARISON)) if sheet is not None}
    sheets = [sheet for sheet in book.worksheets if _find(book, RUNS) is None or sheet.title not in ours]
    found: list[Row] = []
    for sheet in sheets:
        cells = read_cells(sheet)
        source = f"{path.name}, sheet {sheet.title}"
        if any(value == "image_AUROC" for (_, at), value in cells.items() if at == 1):
            found += import_blocks(cells, source, dataset or "not recorded")
    if not found:
        names = ", ".join(sheet.title for sheet in sheets)
        raise InputError(
            f"{path} has no block of models to import (sheets: {names}). A block is: the model's name in A and its "
            "configurations in B, C, ...; below it, in A, image_AUROC, image_F1Score, pixel_AUROC, pixel_F1Score."
        )
    return found


def _update(path: Path, waiting: Path, run: Run | None, imported: Sequence[Row], prune: bool) -> Outcome:
    from defectlab.results.workbook.sheets import headers_of, read_runs, write_comparison, write_runs

    for partial in path.parent.glob(f".{path.name}.*.part"):  # of a writer that was killed: only one writes at a time
        partial.unlink(missing_ok=True)
    pending = waiting.read_text(encoding="utf-8").splitlines() if waiting.is_file() else []
    book = _open(path)
    sheet = _find(book, RUNS)
    before = {} if sheet is None else read_runs(sheet)
    rows = _merged(before, [*pending, *([str(run.folder.absolute())] if run else [])], imported)
    gone = [key for key, row in rows.items() if row["state"] == GONE]
    if prune:
        rows = {key: row for key, row in rows.items() if key not in gone}
    comparison = _find(book, COMPARISON) if sheet is not None else None
    comparison = comparison or _create(book, COMPARISON)
    sheet = sheet or _create(book, RUNS)
    write_runs(sheet, list(rows.values()))
    write_comparison(comparison, list(rows.values()), list(before.values()))
    assert KEY in headers_of(sheet)
    with replacing(path) as partial:
        book.save(partial)
    # Runs that were handed in meanwhile are at the end of the file.
    if pending:
        _forget(waiting, len(pending))
    logger.info("%s: %d rows", paths.relative(path), len(rows))
    return Outcome(path, True, list(rows.values()), len(gone) if prune else 0)


def _forget(waiting: Path, count: int) -> None:
    """Take the first lines off the list of runs that wait; a line that another process adds now stays."""
    taken = waiting.with_name(f"{waiting.name}.{os.getpid()}")
    waiting.rename(taken)
    later = taken.read_text(encoding="utf-8").splitlines()[count:]
    if later:
        with waiting.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in later)
    taken.unlink()


def _merged(before: dict[str, Row], pending: Iterable[str], imported: Sequence[Row]) -> dict[str, Row]:
    """Return all rows in their order: those of the sheet where they were, then new ones, oldest first."""
    runs = {run.record["run_id"]: run for run in [*_runs_at(pending), *find_runs()] if run.status == FINISHED}
    named = [str(row["record"]) for row in before.values() if row.get("state") != IMPORTED and row.get("record")]
    runs = {run.record["run_id"]: run for run in _runs_at(named) if run.status == FINISHED} | runs
    rows: dict[str, Row] = {}
    for key, row in before.items():
        kept = row if row.get("state") == IMPORTED or key in runs else row | {"state": GONE}
        rows[key] = kept
    new = sorted((row_of(run) for run in runs.values()), key=lambda row: row["date (UTC)"])
    for row in [*new, *imported]:
        rows[row[KEY]] = rows.get(row[KEY], {}) | row
    return rows


def _runs_at(folders: Iterable[str]) -> list[Run]:
    places = [paths.resolve(folder) for folder in dict.fromkeys(folders)]
    return [Run.open(place) for place in places if (place / "run.json").is_file()]


def _open(path: Path) -> "Workbook":
    """Open the workbook or begin one; an unreadable file is set aside, and one that would lose something is copied."""
    from openpyxl import Workbook

    if not path.is_file() or not path.stat().st_size:
        book = Workbook()
        book.remove(book.worksheets[0])
        return book
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            book = _load(path)
    except InputError as error:
        aside = _copy_name(path, "unreadable")
        path.rename(aside)
        logger.warning("%s It is kept as %s; a new workbook is made from the records.", error, aside.name)
        return _open(path)
    lost = [str(one.message) for one in said if "removed" in str(one.message) or "not supported" in str(one.message)]
    lost += _dropped(path)
    if lost:
        copy = _copy_name(path, "before")
        shutil.copy2(path, copy)
        logger.warning(
            "%s holds what cannot be carried over (%s): the file as it was is kept as %s",
            path.name, "; ".join(dict.fromkeys(lost)), copy.name,
        )  # fmt: skip
    return book


def _load(path: Path, values: bool = False) -> "Workbook":
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        return load_workbook(path, rich_text=not values, data_only=values)
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as an .xlsx workbook ({type(error).__name__}: {error}).") from error


def _dropped(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        parts = [name for name in archive.namelist() if name.startswith(("xl/drawings/drawing", "xl/worksheets/sheet"))]
        texts = [archive.read(name) for name in parts]
    return [what for what, mark in _DROPPED.items() if any(mark in text for text in texts)]


def _copy_name(path: Path, why: str) -> Path:
    return path.with_name(f"{path.stem}_{why}_{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.getpid()}{path.suffix}")


def _find(book: "Workbook", name: str) -> "Worksheet | None":
    """Return our own sheet of this name; one of a person's that happens to be called so is left alone."""
    from defectlab.results.workbook.sheets import headers_of

    for title in (_second_name(name), name):
        if title in book.sheetnames:
            sheet = book[title]
            if name != RUNS or KEY in headers_of(sheet):
                return sheet
    return None


def _create(book: "Workbook", name: str) -> "Worksheet":
    title = name if name not in book.sheetnames else _second_name(name)
    if title != name:
        logger.warning("The workbook has a sheet %s that is not DefectLab's: writing to %s", name, title)
    return book.create_sheet(title)


def _second_name(name: str) -> str:
    return f"{name} (DefectLab)"
