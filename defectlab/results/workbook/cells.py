"""Cell styles and helpers shared by the workbook's sheets: reading, writing, marking cells, and page setup."""

from collections.abc import Iterable, Iterator
from typing import Any

from openpyxl.cell.cell import TYPE_STRING, Cell, MergedCell
from openpyxl.styles import Font, PatternFill
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from defectlab.results.workbook.hand_kept_layout import Cells
from defectlab.results.workbook_row import KEY, current_name
from defectlab_runtime import names

MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384  # of a sheet, in every program
ROW_GAP, COLUMN_GAP = 1000, 100  # free rows or columns behind which a cell is a stray one

BEST = PatternFill("solid", fgColor="FFC6E8C3")
HEADER = PatternFill("solid", fgColor="FFE3E9F1")
ORACLE_HEADER = PatternFill("solid", fgColor="FFF8DDB5")
SIGNS = ("=", "+", "-", "@")
PLAIN = Font(name="Calibri", size=11)
BOLD = Font(name="Calibri", size=11, bold=True)


def cells_of(sheet: Worksheet) -> list[Cell | MergedCell]:
    """Return the cells that a sheet holds, by row and column.

    openpyxl's own iteration makes every cell up to the last one: 200 s for one stray cell in the last row.
    """
    return [sheet._cells[place] for place in sorted(sheet._cells)]


def read_cells(sheet: Worksheet) -> Cells:
    """Return the values of a sheet's non-empty cells by (row, column)."""
    return {(cell.row, cell.column): cell.value for cell in cells_of(sheet) if cell.value is not None}


def headers_of(sheet: Worksheet) -> dict[str, int]:
    """Return the column of each header in row 1; the first column if a header is repeated."""
    found: dict[str, int] = {}
    for (row, column), value in read_cells(sheet).items():
        if row == 1:
            found.setdefault(current_name(str(value)), column)
    return found


def rows_by_key(sheet: Worksheet) -> dict[str, int]:
    """Return the row of each run id below row 1; the first row if an id is repeated."""
    at = headers_of(sheet).get(KEY)
    found: dict[str, int] = {}
    for (row, column), value in read_cells(sheet).items():
        if column == at and row > 1:
            found.setdefault(str(value), row)
    return found


def taken_cells(sheet: Worksheet) -> set[tuple[int, int]]:
    """Return (row, column) of the cells that hold a value or lie hidden in a merged range."""
    return {place for place, cell in sheet._cells.items() if cell.value is not None or isinstance(cell, MergedCell)}


def free_after(taken: Iterable[int], gap: int, limit: int) -> Iterator[int]:
    """Yield the free row or column numbers behind the block that begins the sheet, up to `limit`.

    The block ends where more than `gap` numbers in a row are free: a stray cell far away is no part of it.

    >>> numbers = free_after([1, 2, 4, 9], gap=3, limit=20)
    >>> [next(numbers) for _ in range(6)]
    [5, 6, 7, 8, 10, 11]
    """
    held = sorted(set(taken))
    end = 0
    for number in held:
        if number - end - 1 > gap:
            break
        end = number
    others = set(held)
    return (number for number in range(end + 1, limit + 1) if number not in others)


def clear(sheet: Worksheet) -> None:
    """Remove all cells of a sheet, so that it can be laid out anew."""
    sheet._cells.clear()


def delete_row(sheet: Worksheet, row: int) -> None:
    """Remove a row and move the ones below up, with their formulas."""
    for place in [place for place in sheet._cells if place[0] == row]:
        del sheet._cells[place]
    for below, column in sorted(place for place in sheet._cells if place[0] > row):
        sheet._move_cell(below, column, -1, 0, True)


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
