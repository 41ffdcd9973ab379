"""Detection of users' additions to DefectLab's sheets, and replacement of unchanged generated sheets."""

import hashlib
import html
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from openpyxl import Workbook
from openpyxl.packaging.custom import StringProperty
from openpyxl.worksheet.worksheet import Worksheet
from openpyxl.xml.functions import tostring

from defectlab.results.workbook.cells import BEST, HEADER, ORACLE_HEADER, headers_of, read_cells, rows_by_key
from defectlab.results.workbook_row import is_ours


def has_own_content(sheet: Worksheet) -> bool:
    """Return whether a user added columns, rows, notes, colours, charts, rules or references to this sheet."""
    headers = {at: header for header, at in headers_of(sheet).items()}
    rows = {1, *rows_by_key(sheet).values()}
    foreign = any(at not in headers or not is_ours(headers[at]) or row not in rows for row, at in read_cells(sheet))
    return foreign or any(True for _ in _formulas(sheet)) or has_extras(sheet)


def has_extras(sheet: Worksheet) -> bool:
    """Return whether a user added anything but values, which would be lost or misplaced if cells moved."""
    drawn = sheet._charts or sheet._images or sheet.tables or sheet.merged_cells.ranges
    rules = sheet.data_validations.dataValidation or len(sheet.conditional_formatting) or sheet.auto_filter.filterColumn
    return bool(drawn or rules or _has_notes(sheet) or _has_colours(sheet) or is_referred_to(sheet))


def _has_colours(sheet: Worksheet) -> bool:
    ours = {fill.fgColor.rgb for fill in (BEST, HEADER, ORACLE_HEADER)}
    cells = (cell for row in sheet.iter_rows() for cell in row if cell.has_style)
    return any(cell.fill.patternType and cell.fill.fgColor.rgb not in ours for cell in cells)


def _has_notes(sheet: Worksheet) -> bool:
    return any(cell.comment for row in sheet.iter_rows() for cell in row)


def is_referred_to(sheet: Worksheet) -> bool:
    """Return whether a formula or a chart of another sheet, or a defined name, refers to this sheet."""
    names = (f"{sheet.title}!", f"'{sheet.title}'!")
    if any(name in str(defined.value) for name in names for defined in sheet.parent.defined_names.values()):
        return True
    for other in sheet.parent.worksheets:
        if other is sheet:
            continue
        if any(name in text for text in (*_formulas(other), *_drawn(other)) for name in names):
            return True
    return False


def _drawn(sheet: Worksheet) -> Iterable[str]:
    """Return each chart of a sheet as XML, which contains the cell ranges that the chart draws."""
    return (html.unescape(tostring(chart._write()).decode()) for chart in sheet._charts)


def _formulas(sheet: Worksheet) -> Iterable[str]:
    return (
        str(getattr(cell.value, "text", cell.value))
        for row in sheet.iter_rows()
        for cell in row
        if cell.data_type == "f"
    )


logger = logging.getLogger(__name__)

LEADERBOARD, PER_DEFECT, ABOUT = "leaderboard", "per defect", "about"
GENERATED = (LEADERBOARD, PER_DEFECT, ABOUT)
_PROPERTY = "DefectLab sheet "


def is_generated(book: Workbook, sheet: Worksheet) -> bool:
    """Return whether DefectLab generated this sheet, even if a user has changed it since."""
    return f"{_PROPERTY}{sheet.title}" in book.custom_doc_props.names


def remove_generated(book: Workbook) -> dict[str, int]:
    """Remove the generated sheets that no user has changed.

    Returns:
        The names that are free to be written again, and the place of each among all sheets.
    """
    places: dict[str, int] = {}
    for at, sheet in enumerate(list(book.worksheets)):
        if not is_generated(book, sheet):
            continue
        name = f"{_PROPERTY}{sheet.title}"
        if book.custom_doc_props[name].value == fingerprint(sheet):
            places[sheet.title] = at
            book.remove(sheet)
            del book.custom_doc_props[name]
    return places


def create_generated(book: Workbook, places: dict[str, int]) -> dict[str, Worksheet]:
    """Create an empty sheet for each generated name, at its earlier position or the end; a taken name gets a number."""
    titles = {name: _title(book, name, places) for name in GENERATED}
    order = sorted(GENERATED, key=lambda name: places.get(titles[name], len(book.worksheets) + len(GENERATED)))
    return {name: book.create_sheet(titles[name], places.get(titles[name])) for name in order}


def _title(book: Workbook, name: str, places: dict[str, int]) -> str:
    was = next((title for title in places if title == name or title.startswith(f"{name} (")), None)
    if was is not None:
        return was
    taken = {sheet.title.lower() for sheet in book.worksheets}
    candidates = [name, *(f"{name} ({number})" for number in range(2, len(taken) + 3))]
    title = next(title for title in candidates if title.lower() not in taken)
    if title != name:
        logger.warning("The sheet %s was changed by hand and stays as it is: the new one is %s", name, title)
    return title


def store_fingerprints(book: Workbook, sheets: Sequence[Worksheet]) -> None:
    """Store a fingerprint of each sheet in the workbook, so that a later change by a user is detected."""
    for sheet in sheets:
        book.custom_doc_props.append(StringProperty(name=f"{_PROPERTY}{sheet.title}", value=fingerprint(sheet)))


def fingerprint(sheet: Worksheet) -> str:
    """Return a hash of a sheet's values, colours and notes, and of its numbers of charts, pictures, tables and more.

    Numbers are hashed to twelve digits, because a spreadsheet program that saves the file may round further digits.
    """
    parts: list[Any] = []
    for row in sheet.iter_rows():
        for cell in row:
            fill = cell.fill.fgColor.rgb if cell.has_style and cell.fill.patternType else None
            if cell.value is not None or fill or cell.comment:
                note = cell.comment.text if cell.comment else None
                parts.append((cell.row, cell.column, _plain(cell.value), str(fill), note))
    drawn = (sheet._charts, sheet._images, sheet.tables, sheet.merged_cells.ranges)
    parts += [len(items) for items in drawn]
    parts.append(len(sheet.data_validations.dataValidation))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _plain(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format(float(value), ".12g")
    return str(value)
