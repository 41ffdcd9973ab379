"""Reading and atomic updating of the workbook file by one writer at a time, preserving users' additions."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout
from openpyxl import Workbook

from defectlab.evaluation.k_shot_curve import KShotCurve
from defectlab.results.comparison.ranking import rank_rows
from defectlab.results.comparison.runs import KindResult, kinds_of
from defectlab.results.comparison.significance import TestScores, find_test_scores
from defectlab.results.k_shots import k_shot_curves
from defectlab.results.run.category_run import category_runs
from defectlab.results.run.run import Run, find_runs
from defectlab.results.workbook.about_sheet import write_about
from defectlab.results.workbook.cells import headers_of
from defectlab.results.workbook.comparison_sheet import write_comparison
from defectlab.results.workbook.defects_sheet import write_per_defect
from defectlab.results.workbook.generated_sheets import (
    ABOUT,
    GENERATED,
    K_SHOTS,
    LEADERBOARD,
    PER_DEFECT,
    Shown,
    create_generated,
    remove_generated,
    store_fingerprints,
)
from defectlab.results.workbook.k_shots_sheet import write_k_shots
from defectlab.results.workbook.leaderboard_sheet import write_leaderboard
from defectlab.results.workbook.open_workbook import (
    COMPARISON,
    RUNS,
    copy_name,
    create_sheet,
    file_content,
    find_sheet,
    load,
    new_book,
    open_book,
    select_sheet,
)
from defectlab.results.workbook.pending import (
    clear_leftovers,
    folders_of,
    leave_mark,
    lock_of,
    marks_of,
    render_or_wait,
)
from defectlab.results.workbook.runs_sheet import read_runs, write_runs
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
from defectlab.utils.files import replacing
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

LOCK_SECONDS = 120.0  # of an import or a removal, which no other process can do for this one
ATTEMPTS = 3


@dataclass(frozen=True)
class WorkbookUpdate:
    """Result of a workbook update: `written` is False if the file could not be replaced, else `rows` holds all rows."""

    path: Path
    written: bool
    rows: list[Row]
    pruned: int = 0


def update_workbook(run: Run | None = None, *, imported: Sequence[Row] = (), prune: bool = False) -> WorkbookUpdate:
    """Update the workbook from all records: this run, pending runs, runs under `results/` and runs that it names.

    A row whose record is missing stays, with that state, unless `prune` is set. If another process writes the workbook,
    that one takes this run in. If the file cannot be replaced (it is open in Excel, or the disk is full), a warning is
    logged and the next update adds the row.

    Raises:
        InputError: The workbook's name does not end in .xlsx.
    """
    path = paths.workbook().resolve()  # a link stays a link
    if path.suffix.lower() != ".xlsx":
        raise InputError(f"The workbook is a link to {path}, whose name does not end in .xlsx: link to one that does.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = leave_mark(path, None if run is None else run.folder.absolute())
        if imported or prune:
            with lock_of(path).acquire(timeout=LOCK_SECONDS):
                return _render(path, imported, prune)
        outcome = render_or_wait(path, mark, lambda: _render(path))
        return outcome or WorkbookUpdate(path, True, read_workbook(path))
    except (OSError, Timeout) as error:
        reason = "another process is writing it" if isinstance(error, Timeout) else str(error)
        then = "its rows come in with the next write"
        if imported or prune:
            then = "nothing was imported or removed: close it where it is open and run the same command again"
        elif isinstance(error, Timeout):
            then = "that one takes the rows in before it ends, or else the next write does"
        logger.warning("%s could not be written (%s): %s", path.name, reason, then)
        return WorkbookUpdate(path, False, [])


def read_workbook(path: str | Path | None = None) -> list[Row]:
    """Return the rows of the `runs` sheet with typed values; an empty list if there is no workbook or no such sheet.

    Raises:
        InputError: The file is no workbook.
    """
    path = paths.workbook() if path is None else paths.resolve(path)
    if not path.is_file() or not path.stat().st_size:
        return []
    book = load(path)
    sheet = find_sheet(book, RUNS)
    return [] if sheet is None else list(read_runs(sheet).values())


class _ChangedError(Exception):
    """Another program saved the workbook while it was rendered here."""


def _render(path: Path, imported: Sequence[Row] = (), prune: bool = False) -> WorkbookUpdate:
    """Render the workbook with all marks that wait, and remove these; only for the process that holds the lock."""
    clear_leftovers(path)
    marks = marks_of(path)
    for _ in range(ATTEMPTS):
        try:
            outcome = _render_once(path, folders_of(marks), imported, prune)
        except _ChangedError:
            logger.info("%s was saved by another program meanwhile: it is written again", path.name)
            continue
        for mark in marks:
            mark.unlink(missing_ok=True)
        logger.info("%s: %d rows", paths.relative(path), len(outcome.rows))
        return outcome
    raise OSError(f"another program keeps saving {path.name}")


def _render_once(path: Path, pending: Sequence[str], imported: Sequence[Row], prune: bool) -> WorkbookUpdate:
    stamp = _stamp(path)
    unusable = None
    try:
        book = open_book(path)
    except InputError as error:
        unusable, book = str(error), new_book()
    before = _rows_before(book)
    found = _found(before, pending)
    rows = _merged(before, found, imported)
    gone = [key for key, row in rows.items() if row.get("state") == GONE]
    if prune:
        rows = {key: row for key, row in rows.items() if key not in gone}
    try:
        content = _filled(book, before, rows, found, path)
    except Exception as error:
        if unusable is not None or not book.sheetnames:
            raise
        # of a person's file whatever openpyxl can read but not write; a fault of ours is one in a new file too
        logger.debug("A workbook that cannot be written", exc_info=True)
        unusable = f"{path} holds what cannot be written again ({type(error).__name__}: {error})."
        content = _filled(new_book(), before, rows, found, path)
    _replace(path, content, stamp, unusable)
    return WorkbookUpdate(path, True, list(rows.values()), len(gone) if prune else 0)


def _rows_before(book: Workbook) -> dict[str, Row]:
    """Return the rows of the sheet `runs`, or of one that a user has renamed, for rows that have no record here."""
    sheet = find_sheet(book, RUNS)
    if sheet is None:
        named = {"dataset", "model", "run", KEY}
        sheet = next((sheet for sheet in book.worksheets if named <= set(headers_of(sheet))), None)
    return {} if sheet is None else read_runs(sheet)


def _filled(
    book: Workbook,
    before: Mapping[str, Row],
    rows: Mapping[str, Row],
    found: Mapping[str, tuple[Run, Row]],
    path: Path,
) -> bytes:
    """Return the .xlsx file of the workbook with its sheets written anew; `before` holds the rows it has now."""
    active = None if book.active is None else book.active.title
    shown = remove_generated(book)
    comparison = find_sheet(book, COMPARISON) or create_sheet(book, COMPARISON)
    sheet = find_sheet(book, RUNS) or create_sheet(book, RUNS)
    write_runs(sheet, list(rows.values()))
    write_comparison(comparison, list(rows.values()), list(before.values()))
    write_generated(book, shown, list(rows.values()), {key: its for key, (its, _) in found.items()}, path)
    select_sheet(book, active)
    return file_content(book)


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a program saves the file; None without a file."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _replace(path: Path, content: bytes, stamp: tuple[int, ...] | None, unusable: str | None) -> None:
    """Replace the file, which is set aside first where it is `unusable`, unless it is no longer the one of `stamp`."""
    with replacing(path) as partial:
        partial.write_bytes(content)
        if _stamp(path) != stamp:
            raise _ChangedError
        if unusable is not None:
            aside = copy_name(path, "unreadable")
            path.rename(aside)
            logger.warning(
                "%s It is kept as %s, with your own sheets and imported rows; a new workbook is made from the records.",
                unusable,
                aside.name,
            )


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
    for folder in dict.fromkeys(folders):
        try:
            if (paths.resolve(folder) / "run.json").is_file():
                found.append(Run.open(folder))
        except (OSError, ValueError) as error:  # a person may have typed any text for a folder
            logger.warning("Unreadable record in %.200s (%s)", folder, error)
    return found


def write_generated(
    book: Workbook, shown: Mapping[str, Shown], rows: Sequence[Row], runs: Mapping[str, Run], workbook: Path
) -> None:
    """Write the generated sheets where and as they were `shown`, reading every scores.csv once.

    A run that serves several categories has a row in the ranking of each, beside the runs on that category alone.
    """
    rows, runs = rows_by_category(rows, runs)
    scores = {key: find_test_scores(run) for key, run in runs.items()}
    kinds = {key: _kinds(run, scores[key]) for key, run in runs.items()}
    rankings = rank_rows(rows, runs, scores)
    curves = {key: its for key, run in runs.items() if (its := _curves(run))}
    sheets = create_generated(book, shown, [*GENERATED, *[K_SHOTS] * bool(curves)])
    write_leaderboard(sheets[LEADERBOARD], rankings, workbook)
    write_per_defect(sheets[PER_DEFECT], rankings, kinds)
    write_about(sheets[ABOUT], rankings)
    if curves:
        write_k_shots(sheets[K_SHOTS], rows, curves)
    store_fingerprints(book, list(sheets.values()))


def rows_by_category(rows: Sequence[Row], runs: Mapping[str, Run]) -> tuple[list[Row], dict[str, Run]]:
    """Return rows and runs by id with each run that serves several categories replaced by these.

    The row of one whose record is gone stays as it is: it has the means alone.
    """
    alone = {key: category_runs(run) for key, run in runs.items()}
    of_categories = {one.record.run_id: one for its in alone.values() for one in its}
    found: list[Row] = []
    for row in rows:
        its = alone.get(str(row[KEY]))
        found += [row_of(one) for one in its] if its else [row]
    return found, {key: run for key, run in runs.items() if not alone[key]} | of_categories


def _curves(run: Run) -> dict[str, KShotCurve]:
    try:
        return k_shot_curves(run)
    except (ValueError, KeyError) as error:
        logger.warning("%s has no readable curves of k_shots (%r)", paths.relative(run.folder), error)
        return {}


def _kinds(run: Run, scores: TestScores | None) -> list[KindResult]:
    try:
        return kinds_of(run, scores)
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("%s has no readable kinds of defect (%r)", paths.relative(run.folder), error)
        return []
