"""Cell styles and helpers shared by the workbook's sheets: reading, writing, marking cells, and page setup."""

from typing import Any

from openpyxl.cell.cell import TYPE_STRING, MergedCell
from openpyxl.styles import Font, PatternFill
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from defectlab.results.workbook.hand_kept_layout import Cells
from defectlab.results.workbook_row import KEY, current_name
from defectlab.utils import names

BEST = PatternFill("solid", fgColor="FFC6E8C3")
HEADER = PatternFill("solid", fgColor="FFE3E9F1")
ORACLE_HEADER = PatternFill("solid", fgColor="FFF8DDB5")
SIGNS = ("=", "+", "-", "@")
PLAIN = Font(name="Calibri", size=11)
BOLD = Font(name="Calibri", size=11, bold=True)


def read_cells(sheet: Worksheet) -> Cells:
    """Return the values of a sheet's non-empty cells by (row, column)."""
    return {(cell.row, cell.column): cell.value for row in sheet.iter_rows() for cell in row if cell.value is not None}


def headers_of(sheet: Worksheet) -> dict[str, int]:
    """Return the column of each header in row 1; the first column if a header is repeated."""
    found: dict[str, int] = {}
    for cell in sheet[1]:
        if cell.value is not None:
            found.setdefault(current_name(str(cell.value)), cell.column)
    return found


def rows_by_key(sheet: Worksheet) -> dict[str, int]:
    """Return the row of each run id below row 1; the first row if an id is repeated."""
    at = headers_of(sheet).get(KEY)
    if at is None:
        return {}
    keys = ((str(sheet.cell(place, at).value), place) for place in range(2, sheet.max_row + 1))
    found: dict[str, int] = {}
    for key, place in keys:
        if key != "None":
            found.setdefault(key, place)
    return found


def write_value(cell: Any, value: Any) -> None:
    """Write a value to a cell unless the cell is hidden inside a merged range; text is never taken for a formula."""
    if isinstance(cell, MergedCell):
        return
    if isinstance(value, str):
        cell.value = names.cell(value)
        cell.data_type = TYPE_STRING  # else "=1+1" would be a formula, and "#N/A" an error
        if cell.value.startswith(SIGNS):
            cell.quotePrefix = True  # Excel then keeps it as text when a person edits it
    else:
        cell.value = value


def put(sheet: Worksheet, row: int, column: int, value: Any = None) -> Any:
    """Write a value to a cell of a sheet that DefectLab owns, as `write_value` does, and return the cell."""
    cell = sheet.cell(row, column)
    if value is not None:
        write_value(cell, value)
    return cell


def mark(cell: Any, is_best: bool) -> None:
    """Mark a cell as the best value, or clear an earlier mark; other fill colours are preserved."""
    if isinstance(cell, MergedCell):
        return
    if is_best:
        cell.fill, cell.font = BEST, BOLD
    elif cell.fill.fgColor.rgb == BEST.fgColor.rgb:
        cell.fill, cell.font = PatternFill(), PLAIN


def set_pages(sheet: Worksheet, wide: int) -> None:
    """Set a sheet to print on landscape A4, fitted to `wide` pages across."""
    sheet.page_setup.orientation = "landscape"
    sheet.page_setup.paperSize = sheet.PAPERSIZE_A4
    sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = wide, 0
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
