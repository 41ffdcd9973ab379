"""Sheets that DefectLab generates anew with each write, unless a user has changed them."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openpyxl import Workbook
from openpyxl.packaging.custom import StringProperty
from openpyxl.styles.colors import Color
from openpyxl.worksheet.protection import SheetProtection
from openpyxl.worksheet.worksheet import Worksheet

from defectlab.results.workbook.cells import cells_of
from defectlab.results.workbook.range_links import has_range_links

logger = logging.getLogger(__name__)

LEADERBOARD, PER_DEFECT, ABOUT = "leaderboard", "per defect", "about"
K_SHOTS = "k-shots"  # only where a run has fits with a few images
GENERATED = (LEADERBOARD, PER_DEFECT, ABOUT)
_PROPERTY = "DefectLab sheet "


def is_generated(book: Workbook, sheet: Worksheet) -> bool:
    """Return whether DefectLab generated this sheet, even if a user has changed it since."""
    return f"{_PROPERTY}{sheet.title}" in book.custom_doc_props.names


@dataclass(frozen=True)
class Shown:
    """Where a generated sheet stood among all sheets, and what a user set on it that its content does not say."""

    place: int
    state: str
    protection: SheetProtection
    tab_colour: Color | None
    zoom: int | None


def remove_generated(book: Workbook) -> dict[str, Shown]:
    """Remove the generated sheets that no user has changed.

    Returns:
        The names that are free to be written again, and how each was shown.
    """
    shown: dict[str, Shown] = {}
    for at, sheet in enumerate(list(book._sheets)):
        if not isinstance(sheet, Worksheet) or not is_generated(book, sheet):
            continue
        name = f"{_PROPERTY}{sheet.title}"
        if _is_unchanged(sheet, str(book.custom_doc_props[name].value)):
            properties, zoom = sheet.sheet_properties, sheet.sheet_view.zoomScale
            shown[sheet.title] = Shown(at, sheet.sheet_state, sheet.protection, properties.tabColor, zoom)
            book.remove(sheet)
            del book.custom_doc_props[name]
    return shown


def create_generated(
    book: Workbook, shown: Mapping[str, Shown], generated: Sequence[str] = GENERATED
) -> dict[str, Worksheet]:
    """Create an empty sheet for each generated name, where and as it was shown or at the end.

    A taken name gets a number. The fingerprint of a sheet that a user deleted or renamed is forgotten.
    """
    titles = {name: _title(book, name, shown) for name in generated}
    for title in titles.values():
        if f"{_PROPERTY}{title}" in book.custom_doc_props.names:
            del book.custom_doc_props[f"{_PROPERTY}{title}"]
    last = len(book._sheets) + len(generated)
    order = sorted(generated, key=lambda name: shown[titles[name]].place if titles[name] in shown else last)
    return {name: _create(book, titles[name], shown.get(titles[name])) for name in order}


def _create(book: Workbook, title: str, shown: Shown | None) -> Worksheet:
    sheet = book.create_sheet(title, None if shown is None else shown.place)
    if shown is not None:
        sheet.sheet_state, sheet.protection = shown.state, shown.protection
        sheet.sheet_properties.tabColor, sheet.sheet_view.zoomScale = shown.tab_colour, shown.zoom
    return sheet


def _title(book: Workbook, name: str, shown: Mapping[str, Shown]) -> str:
    was = next((title for title in shown if title == name or title.startswith(f"{name} (")), None)
    if was is not None:
        return was
    taken = {title.lower() for title in book.sheetnames}
    candidates = [name, *(f"{name} ({number})" for number in range(2, len(taken) + 3))]
    title = next(title for title in candidates if title.lower() not in taken)
    if title != name:
        logger.warning("The sheet %s was changed by hand and stays as it is: the new one is %s", name, title)
    return title


def store_fingerprints(book: Workbook, sheets: Sequence[Worksheet]) -> None:
    """Store a fingerprint of each sheet in the workbook, so that a later change by a user is detected."""
    for sheet in sheets:
        value = f"{fingerprint(sheet)} {_rules(sheet)}"
        book.custom_doc_props.append(StringProperty(name=f"{_PROPERTY}{sheet.title}", value=value))


def _is_unchanged(sheet: Worksheet, stored: str) -> bool:
    """Return whether a sheet is as its stored fingerprint says; files of earlier versions have no number of rules."""
    digest, _, rules = stored.partition(" ")
    return digest == fingerprint(sheet) and (not rules.isdecimal() or _rules(sheet) <= int(rules))


def _rules(sheet: Worksheet) -> int:
    """Return how many rules, filters, names and links of ranges a sheet has; a user may delete but not lose any."""
    more = len(sheet.defined_names) + bool(sheet.auto_filter.ref) + has_range_links(sheet)
    return sum(len(found.rules) for found in sheet.conditional_formatting) + more


def fingerprint(sheet: Worksheet) -> str:
    """Return a hash of a sheet's values, colours and notes, and of its numbers of charts, pictures, tables and more.

    Numbers are hashed to twelve digits, because a spreadsheet program that saves the file may round further digits.
    """
    parts: list[Any] = []
    for cell in cells_of(sheet):
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
