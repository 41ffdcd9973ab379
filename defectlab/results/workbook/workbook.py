"""Reading and atomic updating of the workbook file by one writer at a time, preserving users' additions."""

import glob
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from defectlab.results.run.run import Run, find_runs
from defectlab.results.workbook.hand_kept_layout import find_blocks, import_blocks
from defectlab.results.workbook.open_workbook import COMPARISON, RUNS, create_sheet, find_sheet, load, open_book
from defectlab.results.workbook_row import (
    ELSEWHERE,
    FINISHED,
    GONE,
    IMPORTED,
    KEY,
    Row,
    is_imported,
    is_ours,
    is_partial,
    project_id,
    row_of,
)
from defectlab.utils import paths
from defectlab.utils.errors import InputError
from defectlab.utils.files import replacing

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet
from collections.abc import Mapping

from openpyxl import Workbook

from defectlab.results.comparison.ranking import rank_rows
from defectlab.results.comparison.runs import KindResult, kinds_of
from defectlab.results.comparison.significance import TestScores, find_test_scores
from defectlab.results.workbook.about_sheet import write_about
from defectlab.results.workbook.defects_sheet import write_per_defect
from defectlab.results.workbook.leaderboard_sheet import write_leaderboard
from defectlab.results.workbook.user_content import ABOUT, LEADERBOARD, PER_DEFECT, create_generated, store_fingerprints

logger = logging.getLogger(__name__)

LOCK_SECONDS = 120.0


@dataclass(frozen=True)
class WorkbookUpdate:
    """Result of a workbook update: `written` is False if the file could not be replaced, else `rows` holds all rows."""

    path: Path
    written: bool
    rows: list[Row]
    pruned: int = 0


def update_workbook(run: Run | None = None, *, imported: Sequence[Row] = (), prune: bool = False) -> WorkbookUpdate:
    """Update the workbook from all records: this run, pending runs, runs under `results/` and runs that it names.

    A row whose record is missing stays, with that state, unless `prune` is set. If the file cannot be replaced (it is
    open in Excel, locked by another writer, or the disk is full), a warning is logged and the next update adds the row.
    """
    path = paths.workbook().resolve()  # a link stays a link
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if run is not None:
            with _pending_list(path).open("a", encoding="utf-8") as file:
                file.write(f"{run.folder.absolute()}\n")
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS):
            return _update(path, run, imported, prune)
    except (OSError, Timeout) as error:
        reason = "another process is writing it" if isinstance(error, Timeout) else str(error)
        then = "its rows come in with the next write"
        if imported or prune:
            then = "nothing was imported or removed: close it where it is open and run the same command again"
        logger.warning("%s could not be written (%s): %s", path.name, reason, then)
        return WorkbookUpdate(path, False, [])


def _pending_list(path: Path) -> Path:
    """Return the path of the list of run folders whose rows are pending, including folders outside results/."""
    return path.with_name(f".{path.name}.pending")


def read_workbook(path: str | Path | None = None) -> list[Row]:
    """Return the rows of the `runs` sheet with typed values; an empty list if there is no workbook or no such sheet.

    Raises:
        InputError: The file is no workbook.
    """
    from defectlab.results.workbook.runs_sheet import read_runs

    path = paths.workbook() if path is None else paths.resolve(path)
    if not path.is_file() or not path.stat().st_size:
        return []
    book = load(path)
    sheet = find_sheet(book, RUNS)
    return [] if sheet is None else list(read_runs(sheet).values())


def imported_rows(file: str | Path, dataset: str | None = None) -> list[Row]:
    """Return the configurations of a hand-kept workbook as rows, from every sheet except DefectLab's own.

    Raises:
        InputError: No such file, no workbook, no block, or a value that is no metric.
    """
    from defectlab.results.workbook.cells import read_cells
    from defectlab.results.workbook.user_content import is_generated

    path = Path(file) if Path(file).is_file() else paths.resolve(file)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    book, values = load(path), load(path, values=True)
    ours = [find_sheet(book, RUNS), find_sheet(book, COMPARISON)] if find_sheet(book, RUNS) else []
    ours += [sheet for sheet in book.worksheets if is_generated(book, sheet)]
    sheets = [sheet for sheet in book.worksheets if sheet not in ours]
    found: list[Row] = []
    for sheet in sheets:
        source = f"{path.name}, sheet {sheet.title}"
        written, cells = read_cells(sheet), read_cells(values[sheet.title])
        unknown = [place for place in written if place not in cells]
        if find_blocks(cells):
            _check_formulas(sheet, unknown, source)
            found += import_blocks(cells, source, dataset or "not recorded")
        elif sheet.max_row > 1:
            logger.info("%s: no block of models, left out", source)
    if not found:
        own = "It is a workbook of DefectLab's own: its rows come from run folders, so copy those. " if ours else ""
        names = ", ".join(sheet.title for sheet in sheets) or "none"
        raise InputError(
            f"{path} has no block of models to import (sheets looked at: {names}). {own}A block is: the model's name "
            "in A and its configurations in B, C, ...; below it, in A, image_AUROC, image_F1Score, pixel_AUROC, "
            "pixel_F1Score."
        )
    return found


def _check_formulas(sheet: "Worksheet", unknown: Sequence[tuple[int, int]], source: str) -> None:
    """Check that cells without a stored value hold no formula, which only a spreadsheet program could compute."""
    cells = [sheet.cell(*place).coordinate for place in unknown if sheet.cell(*place).data_type == "f"]
    if cells:
        raise InputError(
            f"{source}: cell {cells[0]} holds a formula without its value. Open the file in Excel or LibreOffice, save "
            "it, and import again."
        )


def _update(path: Path, run: Run | None, imported: Sequence[Row], prune: bool) -> WorkbookUpdate:
    from defectlab.results.workbook.comparison_sheet import write_comparison
    from defectlab.results.workbook.runs_sheet import read_runs, write_runs
    from defectlab.results.workbook.user_content import remove_generated

    for partial in path.parent.glob(f".{path.name}.*.part"):  # left by a killed writer; only one writes at a time
        partial.unlink(missing_ok=True)
    waiting = _claim_pending(path)
    pending = [line for file in waiting for line in file.read_text(encoding="utf-8").splitlines()]
    book = open_book(path)
    places = remove_generated(book)
    sheet, comparison = find_sheet(book, RUNS), find_sheet(book, COMPARISON)
    before = {} if sheet is None else read_runs(sheet)
    found = _found(before, [*pending, *([str(run.folder.absolute())] if run else [])])
    rows = _merged(before, found, imported)
    gone = [key for key, row in rows.items() if row.get("state") == GONE]
    if prune:
        rows = {key: row for key, row in rows.items() if key not in gone}
    comparison = comparison or create_sheet(book, COMPARISON)
    sheet = sheet or create_sheet(book, RUNS)
    write_runs(sheet, list(rows.values()))
    write_comparison(comparison, list(rows.values()), list(before.values()))
    write_generated(book, places, list(rows.values()), {key: its for key, (its, _) in found.items()}, path)
    with replacing(path) as partial:
        book.save(partial)
    for file in waiting:
        file.unlink()
    logger.info("%s: %d rows", paths.relative(path), len(rows))
    return WorkbookUpdate(path, True, list(rows.values()), len(gone) if prune else 0)


def _claim_pending(path: Path) -> list[Path]:
    """Rename the pending list so that other processes can start a new one; return all renamed lists."""
    waiting = _pending_list(path)
    if waiting.is_file():
        waiting.rename(waiting.with_name(f"{waiting.name}.{os.getpid()}-{time.time_ns()}"))
    return sorted(waiting.parent.glob(f"{glob.escape(waiting.name)}.*"))


def _found(before: dict[str, Row], pending: Iterable[str]) -> dict[str, tuple[Run, Row]]:
    """Return the available finished runs by id: those that the rows name, pending ones and those under results/."""
    named = [str(row["record"]) for row in before.values() if row.get("record") and not is_imported(row)]
    here = find_runs()
    read = {run.folder for run in here}
    elsewhere = [folder for folder in (*named, *pending) if paths.resolve(folder) not in read]
    pairs = _rows_of([*_runs_at(elsewhere), *here])
    return {row[KEY]: (run, row) for run, row in pairs}


def _merged(before: dict[str, Row], found: dict[str, tuple[Run, Row]], imported: Sequence[Row]) -> dict[str, Row]:
    """Return all rows: those of the sheet in their order, updated, then new ones, oldest first, then imported ones."""
    rows = {key: row if key in found else row | {"state": _state(row)} for key, row in before.items()}
    new = [row for _, row in found.values()]
    for row in [*sorted(new, key=lambda row: row["date (UTC)"]), *imported]:
        own = {key: value for key, value in rows.get(row[KEY], {}).items() if not is_ours(key)}
        rows[row[KEY]] = own | row
    return rows


def _state(row: Row) -> str:
    """Return the state of a row whose record is not found: imported, missing, or belonging to another project."""
    if is_imported(row):
        return IMPORTED
    if is_partial(row):  # neither is it ranked once its record is gone
        return str(row["state"])
    return GONE if row.get("project", project_id()) == project_id() else ELSEWHERE


def _rows_of(runs: Iterable[Run]) -> Iterator[tuple[Run, Row]]:
    for run in runs:
        if run.status != FINISHED:
            continue
        try:
            yield run, row_of(run)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            logger.warning("%s has a record that no row can be made of (%r)", paths.relative(run.folder), error)


def _runs_at(folders: Iterable[str]) -> list[Run]:
    found = []
    for place in (paths.resolve(folder) for folder in dict.fromkeys(folders)):
        if not (place / "run.json").is_file():
            continue
        try:
            found.append(Run.open(place))
        except (OSError, ValueError) as error:
            logger.warning("Unreadable record in %s (%s)", paths.relative(place), error)
    return found


def write_generated(
    book: Workbook, places: dict[str, int], rows: Sequence[Row], runs: Mapping[str, Run], workbook: Path
) -> None:
    """Write the generated sheets at their earlier positions (`places`), reading every scores.csv once."""
    scores = {key: find_test_scores(run) for key, run in runs.items()}
    kinds = {key: _kinds(run, scores[key]) for key, run in runs.items()}
    rankings = rank_rows(rows, runs, scores)
    sheets = create_generated(book, places)
    write_leaderboard(sheets[LEADERBOARD], rankings, workbook)
    write_per_defect(sheets[PER_DEFECT], rankings, kinds)
    write_about(sheets[ABOUT], rankings)
    store_fingerprints(book, list(sheets.values()))


def _kinds(run: Run, scores: TestScores | None) -> list[KindResult]:
    try:
        return kinds_of(run, scores)
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("%s has no readable kinds of defect (%r)", paths.relative(run.folder), error)
        return []
