"""The sheets `runs` and `comparison`: written around whatever a person added to them, which never moves.

Where a sheet holds nothing but what was written here, it is laid out anew, columns and blocks in their best order.
Once a person has added something, everything stays where it is (formulas refer to places): new rows go below, new
columns and configurations to the right, new blocks to the end.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from openpyxl.cell.cell import MergedCell
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.filters import AutoFilter
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet
from openpyxl.xml.functions import tostring

from defectlab.results.workbook.blocks import (
    GAP,
    HEIGHT,
    Block,
    Cells,
    column,
    find_blocks,
    frame,
    labelled,
    layout,
    titles,
    used,
)
from defectlab.results.workbook.rows import (
    KEY,
    Row,
    best_rows,
    column_order,
    current_name,
    is_interval,
    is_metric,
    is_oracle,
    is_ours,
    number,
    ranked_within,
)

BEST = PatternFill("solid", fgColor="FFC6E8C3")
HEADER = PatternFill("solid", fgColor="FFE3E9F1")
ORACLE_HEADER = PatternFill("solid", fgColor="FFF8DDB5")
PLAIN = Font(name="Calibri", size=11)
BOLD = Font(name="Calibri", size=11, bold=True)
TITLE = Font(name="Calibri", size=12, bold=True)
WIDEST = 44
NARROWEST = 16


def read_cells(sheet: Worksheet) -> Cells:
    """Return what is written on a sheet, without empty cells."""
    return {(cell.row, cell.column): cell.value for row in sheet.iter_rows() for cell in row if cell.value is not None}


def headers_of(sheet: Worksheet) -> dict[str, int]:
    """Return the column of each header in row 1; of equal ones the first."""
    found: dict[str, int] = {}
    for cell in sheet[1]:
        if cell.value is not None:
            found.setdefault(current_name(str(cell.value)), cell.column)
    return found


def read_runs(sheet: Worksheet) -> dict[str, Row]:
    """Return the sheet's rows by their id, in the sheet's order, with the columns that a person added."""
    headers = headers_of(sheet)
    rows: dict[str, Row] = {}
    for place in _rows_by_key(sheet).values():
        row = {header: sheet.cell(place, at).value for header, at in headers.items()}
        rows[str(row[KEY])] = {header: value for header, value in row.items() if value is not None}
    return rows


def write_runs(sheet: Worksheet, rows: Sequence[Row]) -> None:
    """Write the rows in their order, one column for each key; only columns of ours are written to."""
    _ungroup_columns(sheet)
    views = {header: _view(sheet, at) for header, at in headers_of(sheet).items()}
    new = not views
    own = _has_own_content(sheet)
    if not own:
        sheet.delete_rows(1, sheet.max_row)
        headers = {header: at for at, header in enumerate(column_order(rows), 1)}
        places = {str(row[KEY]): place for place, row in enumerate(rows, 2)}
        for dimension in sheet.row_dimensions.values():
            dimension.hidden = False
    else:
        _remove_rows(sheet, {str(row[KEY]) for row in rows})
        headers, places = headers_of(sheet), _rows_by_key(sheet)
        written = read_cells(sheet)
        right, below = max(at for _, at in written), used(written)
        for header in column_order(rows):
            if header not in headers:
                right += 1
                headers[header] = right
        for row in rows:
            if row[KEY] not in places:
                below += 1
                places[str(row[KEY])] = below
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
        _set_pages(sheet, 4)


def write_comparison(sheet: Worksheet, rows: Sequence[Row], before: Sequence[Row]) -> None:
    """Write the rows as blocks; `before` are the rows that the sheet showed until now."""
    actual = read_cells(sheet)
    expected = {place: value for place, value in layout(before).items() if value is not None}
    if actual == expected and not _has_extras(sheet):
        if actual:
            sheet.delete_rows(1, sheet.max_row)
        cells = layout(rows)
    else:
        cells = _around(actual, rows, before)
    best = best_rows(rows)
    by_name = labelled(rows)
    for (line, at), value in sorted(cells.items()):
        _write(sheet.cell(line, at), value)
    for block in find_blocks(read_cells(sheet)):
        _style_block(sheet, block, {label: by_name.get((block.title, label)) for label in block.labels}, best)
    if not actual:
        sheet.column_dimensions["A"].width = NARROWEST
        _set_pages(sheet, 1)


def _set_pages(sheet: Worksheet, wide: int) -> None:
    sheet.page_setup.orientation = "landscape"
    sheet.page_setup.paperSize = sheet.PAPERSIZE_A4
    sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = wide, 0
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)


def _fill(sheet: Worksheet, rows: Sequence[Row], headers: Mapping[str, int], places: Mapping[str, int]) -> None:
    best = best_rows(rows)
    for header, at in headers.items():
        if is_ours(header):
            cell = sheet.cell(1, at, header)
            fill = ORACLE_HEADER if is_oracle(header) else HEADER
            cell.font, cell.fill, cell.alignment = BOLD, fill, Alignment(vertical="top")
    for row in rows:
        for header, at in headers.items():
            cell = sheet.cell(places[str(row[KEY])], at)
            if not is_ours(header):
                continue
            _write(cell, row.get(header))
            cell.number_format = _number_format(header)
            if is_metric(header):
                value = number(row, header)
                _mark(cell, value is not None and value == best[ranked_within(row, header)])


def _write(cell: Any, value: Any) -> None:
    """Write a value, unless a person merged the cell into another one."""
    if not isinstance(cell, MergedCell):
        cell.value = value


def _around(actual: Cells, rows: Sequence[Row], before: Sequence[Row]) -> Cells:
    """Return the cells to write into a sheet that holds more than our own: every block keeps its place."""
    old, new = titles(before), titles(rows)
    renamed = {old[key]: new[key] for key in old if key in new}
    shown = {(renamed.get(title, title), label): row for (title, label), row in labelled(before).items()}
    wanted = labelled(rows)
    cells: Cells = {}
    blocks: dict[str, Block] = {}
    for block in find_blocks(actual):
        blocks.setdefault(renamed.get(block.title, block.title), block)
    for (title, label), row in shown.items():  # clear what has gone
        if title in blocks and (title, label) not in wanted:
            at = blocks[title].labels.get(_label_on_sheet(blocks[title], label, row, known=True))
            cells |= dict.fromkeys(column(blocks[title].top, at, label, {})) if at else {}
    bottom = used(actual)
    for (title, label), row in wanted.items():
        if title not in blocks:
            top = bottom + GAP + 1 if bottom else 1
            blocks[title] = Block(top, title, {})
            bottom = top + HEIGHT - 1
        block = blocks[title]
        label = _label_on_sheet(block, label, row, known=(title, label) in shown)
        if label not in block.labels:
            taken = {at for (line, at) in actual if block.top <= line < block.top + HEIGHT}
            free = max([*taken, *block.labels.values(), 1]) + 1
            blocks[title] = block = Block(block.top, title, {**block.labels, label: free})
        cells |= frame(block.top, title) | column(block.top, block.labels[label], label, row)
    return cells


def _label_on_sheet(block: Block, label: str, row: Row, known: bool) -> str:
    """Return the label of a row's column: with its id where a person's own configuration has that name."""
    own = f"{label} {str(row[KEY])[-6:]}"
    return own if own in block.labels or (label in block.labels and not known) else label


def _style_block(sheet: Worksheet, block: Block, shown: Mapping[str, Row | None], best: Mapping[Any, Any]) -> None:
    sheet.cell(block.top, 1).font = TITLE
    for label, at in block.labels.items():
        row = shown[label]
        if row is None:
            continue  # a person's own configuration
        head = sheet.cell(block.top, at)
        head.font, head.fill, head.alignment = BOLD, HEADER, Alignment(horizontal="right")
        dimension = sheet.column_dimensions[get_column_letter(at)]
        dimension.width = max(NARROWEST, min(len(label) + 3, WIDEST), dimension.width)
        for place in range(1, HEIGHT):
            cell = sheet.cell(block.top + place, at)
            metric = str(sheet.cell(block.top + place, 1).value)
            cell.number_format = "0.0000"
            _mark(cell, cell.value is not None and cell.value == best.get(ranked_within(row, metric)))


def _mark(cell: Any, is_best: bool) -> None:
    if isinstance(cell, MergedCell):
        return
    if is_best:
        cell.fill, cell.font = BEST, BOLD
    elif cell.fill.fgColor.rgb == BEST.fgColor.rgb:
        cell.fill, cell.font = PatternFill(), PLAIN


def _rows_by_key(sheet: Worksheet) -> dict[str, int]:
    at = headers_of(sheet).get(KEY)
    if at is None:
        return {}
    keys = ((str(sheet.cell(place, at).value), place) for place in range(2, sheet.max_row + 1))
    found: dict[str, int] = {}
    for key, place in keys:
        if key != "None":
            found.setdefault(key, place)
    return found


def _remove_rows(sheet: Worksheet, kept: set[str]) -> None:
    """Remove rows; those below move up, unless something elsewhere refers to their places."""
    right, referred = get_column_letter(sheet.max_column), _is_referred_to(sheet)
    for key, place in sorted(_rows_by_key(sheet).items(), key=lambda item: -item[1]):
        if key in kept:
            continue
        last = sheet.max_row
        for cell in sheet[place]:
            if not isinstance(cell, MergedCell):
                cell.value = cell.comment = None
        if not referred and not sheet.merged_cells.ranges:
            if place < last:
                sheet.move_range(f"A{place + 1}:{right}{last}", rows=-1, translate=True)
            sheet.delete_rows(last)


def _has_own_content(sheet: Worksheet) -> bool:
    """Whether a person added columns, rows, notes, colours, charts, rules or formulas that refer to this sheet."""
    headers = {at: header for header, at in headers_of(sheet).items()}
    rows = {1, *_rows_by_key(sheet).values()}
    foreign = any(at not in headers or not is_ours(headers[at]) or row not in rows for row, at in read_cells(sheet))
    return foreign or _has_extras(sheet)


def _has_extras(sheet: Worksheet) -> bool:
    """Whether a person added anything but values: what would be lost, or shown elsewhere, if cells moved."""
    drawn = sheet._charts or sheet._images or sheet.tables or sheet.merged_cells.ranges
    rules = sheet.data_validations.dataValidation or len(sheet.conditional_formatting) or sheet.auto_filter.filterColumn
    return bool(drawn or rules or _has_notes(sheet) or _has_colours(sheet) or _is_referred_to(sheet))


def _has_colours(sheet: Worksheet) -> bool:
    ours = {fill.fgColor.rgb for fill in (BEST, HEADER, ORACLE_HEADER)}
    cells = (cell for row in sheet.iter_rows() for cell in row if cell.has_style)
    return any(cell.fill.patternType and cell.fill.fgColor.rgb not in ours for cell in cells)


def _has_notes(sheet: Worksheet) -> bool:
    return any(cell.comment for row in sheet.iter_rows() for cell in row)


def _is_referred_to(sheet: Worksheet) -> bool:
    """Whether a formula or a chart of another sheet, or a defined name, refers to this one."""
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
    """Return each chart of a sheet as XML, where the places it draws stand."""
    return (html.unescape(tostring(chart._write()).decode()) for chart in sheet._charts)


def _formulas(sheet: Worksheet) -> Iterable[str]:
    return (
        str(getattr(cell.value, "text", cell.value))
        for row in sheet.iter_rows()
        for cell in row
        if cell.data_type == "f"
    )


def _ungroup_columns(sheet: Worksheet) -> None:
    """Give each column its own width: a file stores one for a whole range of columns."""
    for letter, dimension in list(sheet.column_dimensions.items()):
        first, last = dimension.min or 0, min(dimension.max or 0, sheet.max_column)
        if last <= first:
            continue
        for at in range(first, last + 1):
            own = sheet.column_dimensions[get_column_letter(at)]
            own.width, own.hidden, own.min, own.max = dimension.width, dimension.hidden, at, at
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
