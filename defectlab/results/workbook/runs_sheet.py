"""The sheet `runs`, with a row for each run; cells that a user added are preserved.

A sheet that holds only values written by DefectLab is laid out again from scratch, with columns in the default order.
Once a user has added something, existing columns and rows keep their order (formulas refer to cells): new rows are
added below and new columns to the right. Rows of removed runs are deleted.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from openpyxl.cell.cell import MergedCell
from openpyxl.styles import Alignment
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.filters import AutoFilter
from openpyxl.worksheet.worksheet import Worksheet

from defectlab.evaluation.metric_names import is_metric, is_oracle
from defectlab.results.workbook.cells import (
    BOLD,
    COLUMN_GAP,
    HEADER,
    MAX_COLUMNS,
    MAX_ROWS,
    ORACLE_HEADER,
    ROW_GAP,
    cells_of,
    clear,
    delete_row,
    free_after,
    headers_of,
    mark,
    rows_by_key,
    set_pages,
    taken_cells,
    write_value,
)
from defectlab.results.workbook.user_content import has_own_content, is_referred_to
from defectlab.results.workbook_row import (
    KEY,
    Row,
    best_rows,
    column_order,
    is_imported,
    is_interval,
    is_ours,
    is_partial,
    number,
    ranked_within,
)

WIDEST = 44


def read_runs(sheet: Worksheet) -> dict[str, Row]:
    """Return the sheet's rows by run id, in the sheet's order, including columns that a user added."""
    headers = headers_of(sheet)
    rows: dict[str, Row] = {}
    for place in rows_by_key(sheet).values():
        row = {header: sheet.cell(place, at).value for header, at in headers.items()}
        rows[str(row[KEY])] = {header: value for header, value in row.items() if value is not None}
    return rows


def write_runs(sheet: Worksheet, rows: Sequence[Row]) -> None:
    """Write the rows with one column for each key, changing values only in DefectLab's own columns."""
    _ungroup_columns(sheet)
    views = {header: _view(sheet, at) for header, at in headers_of(sheet).items()}
    new = not views
    own = has_own_content(sheet)
    if not own:
        clear(sheet)
        headers = {header: at for at, header in enumerate(column_order(rows), 1)}
        places = {str(row[KEY]): place for place, row in enumerate(rows, 2)}
        for dimension in sheet.row_dimensions.values():
            dimension.hidden = False
    else:
        _remove_rows(sheet, {str(row[KEY]) for row in rows})
        headers, places = headers_of(sheet), rows_by_key(sheet)
        taken = taken_cells(sheet)
        right = free_after((at for _, at in taken), COLUMN_GAP, MAX_COLUMNS)
        below = free_after([1, *(line for line, _ in taken)], ROW_GAP, MAX_ROWS)  # row 1 is the headers'
        headers |= {header: next(right) for header in column_order(rows) if header not in headers}
        places |= {str(row[KEY]): next(below) for row in rows if row[KEY] not in places}
    _fill(sheet, rows, headers, places)
    for header, at in headers.items():
        _set_width(sheet, at, header, rows, views.get(header))
    if not sheet.tables:  # a table has a filter of its own
        last = max([*places.values(), 1])
        reference = f"A1:{get_column_letter(max(headers.values()))}{last}"
        if own:
            sheet.auto_filter.ref = reference
        else:
            sheet.auto_filter = AutoFilter(ref=reference)
    if new:
        sheet.freeze_panes = "A2"
        set_pages(sheet, 4)


def _fill(sheet: Worksheet, rows: Sequence[Row], headers: Mapping[str, int], places: Mapping[str, int]) -> None:
    best = best_rows(rows)
    for header, at in headers.items():
        if is_ours(header):
            cell = sheet.cell(1, at)
            write_value(cell, header)
            fill = ORACLE_HEADER if is_oracle(header) else HEADER
            cell.font, cell.fill, cell.alignment = BOLD, fill, Alignment(vertical="top")
    for row in rows:
        for header, at in headers.items():
            cell = sheet.cell(places[str(row[KEY])], at)
            if not is_ours(header) or (cell.data_type == "f" and is_imported(row)):
                continue
            write_value(cell, row.get(header))
            cell.number_format = _number_format(header)
            if is_metric(header):
                value = number(row, header)
                mark(cell, value is not None and not is_partial(row) and value == best[ranked_within(row, header)])


def _remove_rows(sheet: Worksheet, retained: set[str]) -> None:
    """Clear the rows whose ids are not in `retained`, and delete them unless references or merged cells need them."""
    referred = is_referred_to(sheet)
    for key, place in sorted(rows_by_key(sheet).items(), key=lambda item: -item[1]):
        if key in retained:
            continue
        for cell in cells_of(sheet):
            if cell.row == place and not isinstance(cell, MergedCell):
                cell.value = cell.comment = None
        if not referred and not sheet.merged_cells.ranges:
            delete_row(sheet, place)


def _ungroup_columns(sheet: Worksheet) -> None:
    """Give each column its own width, since a file stores one width for a whole range of columns."""
    for letter, dimension in list(sheet.column_dimensions.items()):
        first, last = dimension.min or 0, min(dimension.max or 0, sheet.max_column)
        if last <= first:
            continue
        for at in range(first, last + 1):
            own = sheet.column_dimensions[get_column_letter(at)]
            own.width, own.hidden, own.min, own.max = dimension.width, dimension.hidden, at, at
            own._style = copy(dimension._style)
        if (dimension.max or 0) > last:  # what a person set for the columns beyond stays
            rest = sheet.column_dimensions[get_column_letter(last + 1)]
            rest.width, rest.hidden, rest.min, rest.max = dimension.width, dimension.hidden, last + 1, dimension.max
            rest._style = copy(dimension._style)
        dimension = sheet.column_dimensions[letter]
        dimension.min = dimension.max = first


def _view(sheet: Worksheet, at: int) -> tuple[float, bool]:
    dimension = sheet.column_dimensions[get_column_letter(at)]
    return dimension.width, dimension.hidden


def _set_width(sheet: Worksheet, at: int, header: str, rows: Sequence[Row], earlier: tuple[float, bool] | None) -> None:
    dimension = sheet.column_dimensions[get_column_letter(at)]
    shown = max((len(_shown(header, row[header])) for row in rows if header in row), default=0)
    wanted = min(max(shown, len(header) + 2) + 2, WIDEST)  # a filter's button beside the header
    dimension.width, dimension.hidden = (wanted, False) if earlier is None else (max(wanted, earlier[0]), earlier[1])


def _shown(header: str, value: Any) -> str:
    if isinstance(value, float):
        return "0.000000"
    return "2026-01-01 00:00" if header.startswith("date") else str(value)


def _number_format(header: str) -> str:
    if is_metric(header) or is_oracle(header) or is_interval(header) or header.startswith("trivial"):
        return "0.0000"
    if header.endswith("_threshold"):
        return "0.000000"
    if header.endswith(("_seconds", "_MB")):
        return "0.0"
    return "yyyy-mm-dd hh:mm" if header.startswith("date") else "General"
