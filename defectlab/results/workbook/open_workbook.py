"""Opening or creating the workbook, and finding DefectLab's own sheets among a user's."""

import logging
import os
import re
import shutil
import warnings
import zipfile
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from defectlab.results.workbook.hand_kept_layout import find_blocks
from defectlab.results.workbook.package_check import read_package, unreadable
from defectlab.results.workbook_row import KEY

if TYPE_CHECKING:
    from openpyxl import Workbook
    from openpyxl.worksheet.worksheet import Worksheet

logger = logging.getLogger(__name__)

RUNS, COMPARISON = "runs", "comparison"


def new_book() -> "Workbook":
    """Return a workbook without a sheet."""
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.worksheets[0])
    return book


def open_book(path: Path) -> "Workbook":
    """Open the workbook, or begin one; a file that holds what openpyxl cannot carry over is copied first.

    Raises:
        InputError: The file is damaged, not whole or too large.
    """
    if not path.is_file() or not path.stat().st_size:
        return new_book()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        book, lost = _load(path)
    lost = [
        *(str(one.message) for one in said if re.search("removed|not supported|cannot be", str(one.message))),
        *lost,
    ]
    if lost:
        copy = copy_name(path, "before")
        shutil.copy2(path, copy)
        logger.warning(
            "%s holds what cannot be carried over (%s): the file as it was is kept as %s",
            path.name, "; ".join(dict.fromkeys(lost)), copy.name,
        )  # fmt: skip
    return book


def load(path: Path, values: bool = False) -> "Workbook":
    """Read a workbook with its formulas, or with the last `values` that a spreadsheet program saved for them.

    Raises:
        InputError: The file is damaged, not whole or too large.
    """
    return _load(path, values)[0]


def _load(path: Path, values: bool = False) -> tuple["Workbook", list[str]]:
    """Return the workbook and what openpyxl has left out of it in silence."""
    from openpyxl.reader.excel import ExcelReader

    from defectlab.results.workbook.book_contents import not_read
    from defectlab.results.workbook.cells import MAX_COLUMNS, MAX_ROWS
    from defectlab.results.workbook.range_links import put_back, take_out

    package = read_package(path)
    try:
        content, links = (
            take_out(package.content, package.range_links) if package.range_links else (package.content, {})
        )
        reader = ExcelReader(BytesIO(content), rich_text=not values, data_only=values)
        reader.read()
        book = reader.wb
        for sheet, relation in reader.parser.find_sheets():
            if relation.target in links:
                put_back(book[sheet.name], links[relation.target])
    except Exception as error:  # openpyxl has no error of its own: wrong content can fail anywhere in it
        raise unreadable(path, f"{type(error).__name__}: {error}") from error
    if len(book.sheetnames) != package.sheets:
        raise unreadable(path, f"it holds {package.sheets} sheets, of which {len(book.sheetnames)} can be read")
    for sheet in book.worksheets:
        row, column = (
            max((cell[0] for cell in sheet._cells), default=1),
            max((cell[1] for cell in sheet._cells), default=1),
        )
        if row > MAX_ROWS or column > MAX_COLUMNS:
            raise unreadable(path, f"sheet {sheet.title} has a cell in row {row}, column {column}")
    return book, [*package.lost, *not_read(book, package.held)]


def file_content(book: "Workbook") -> bytes:
    """Return the .xlsx file of a workbook.

    Names of one sheet (of filters and print titles too) refer to it by its place. openpyxl counts worksheets alone
    there, so that beside a chart sheet they would belong to another sheet, and openpyxl itself cannot read the file.
    """
    content = BytesIO()
    book.save(content)
    if not book.chartsheets:
        return content.getvalue()
    places = [place for place, sheet in enumerate(book._sheets) if sheet not in book.chartsheets]
    mended = BytesIO()
    with zipfile.ZipFile(content) as parts, zipfile.ZipFile(mended, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in parts.infolist():
            text = parts.read(part)
            if part.filename == "xl/workbook.xml":
                text = re.sub(rb'(?<=localSheetId=")\d+', lambda found: b"%d" % places[int(found[0])], text)
            archive.writestr(part, text)
    return mended.getvalue()


def copy_name(path: Path, why: str) -> Path:
    """Return a free name beside `path` for a copy of it, with the reason, the time and this process in it."""
    stem = f"{path.stem}_{why}_{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.getpid()}"
    names = (path.with_name(f"{stem}{number}{path.suffix}") for number in ("", *(f"_{n}" for n in range(2, 10_000))))
    return next(name for name in names if not name.exists())


def find_sheet(book: "Workbook", name: str) -> "Worksheet | None":
    """Return DefectLab's sheet of this name (in any case), or None; a user's sheet of the same name is ignored."""
    from defectlab.results.workbook.cells import headers_of, read_cells

    for sheet in book.worksheets:
        if not re.fullmatch(rf"{name}( \(DefectLab( \d+)?\))?", sheet.title, re.IGNORECASE):
            continue
        if KEY in headers_of(sheet) if name == RUNS else find_blocks(read_cells(sheet)):
            return sheet
    return None


def create_sheet(book: "Workbook", name: str) -> "Worksheet":
    """Add a sheet for DefectLab, under another name if a user's sheet already has this name."""
    taken = {title.lower() for title in book.sheetnames}
    others = (f"{name} (DefectLab{number})" for number in ("", *(f" {n}" for n in range(2, len(taken) + 3))))
    title = next(title for title in (name, *others) if title.lower() not in taken)
    if title != name:
        logger.warning("The workbook has a sheet %s that is not DefectLab's: writing to %s", name, title)
    return book.create_sheet(title)


def select_sheet(book: "Workbook", title: str | None) -> None:
    """Open the file at the sheet `title`, if it is there and visible, and with no other sheet selected beside it."""
    from openpyxl.worksheet.worksheet import Worksheet

    if all(sheet.sheet_state != "visible" for sheet in book._sheets):
        book.worksheets[0].sheet_state = "visible"  # no program opens a file without a visible sheet
    visible = [sheet for sheet in book._sheets if sheet.sheet_state == "visible"]
    book.active = active = next((sheet for sheet in visible if sheet.title == title), visible[0])
    for sheet in book._sheets:
        if isinstance(sheet, Worksheet):  # cells typed into one of several selected sheets go into all of them
            sheet.sheet_view.tabSelected = sheet is active
