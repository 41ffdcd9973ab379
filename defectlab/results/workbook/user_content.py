"""Detection of users' additions to DefectLab's sheets."""

import html
from collections.abc import Iterable

from openpyxl.worksheet.worksheet import Worksheet
from openpyxl.xml.functions import tostring

from defectlab.results.workbook.cells import BEST, HEADER, ORACLE_HEADER, cells_of, headers_of, read_cells, rows_by_key
from defectlab.results.workbook.range_links import has_range_links
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
    return bool(
        drawn or rules or has_range_links(sheet) or _has_notes(sheet) or _has_colours(sheet) or is_referred_to(sheet)
    )


def _has_colours(sheet: Worksheet) -> bool:
    ours = {fill.fgColor.rgb for fill in (BEST, HEADER, ORACLE_HEADER)}
    cells = (cell for cell in cells_of(sheet) if cell.has_style)
    return any(cell.fill.patternType and cell.fill.fgColor.rgb not in ours for cell in cells)


def _has_notes(sheet: Worksheet) -> bool:
    return any(cell.comment for cell in cells_of(sheet))


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
    return (str(getattr(cell.value, "text", cell.value)) for cell in cells_of(sheet) if cell.data_type == "f")
