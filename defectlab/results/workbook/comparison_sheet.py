"""The sheet `comparison`, with a block of metrics for each model; cells that a user added never move.

A sheet that holds only values written by DefectLab is laid out again from scratch. Once a user has added something,
new configurations are added to the right of their block and new blocks at the end.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from openpyxl.styles import Alignment, Font
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from defectlab.results.workbook.cells import (
    BOLD,
    COLUMN_GAP,
    HEADER,
    MAX_COLUMNS,
    MAX_ROWS,
    ROW_GAP,
    clear,
    free_after,
    mark,
    read_cells,
    set_pages,
    taken_cells,
    write_value,
)
from defectlab.results.workbook.hand_kept_layout import (
    GAP,
    HEIGHT,
    Block,
    Cells,
    column,
    find_blocks,
    frame,
    layout,
    rows_by_label,
    titles,
)
from defectlab.results.workbook.user_content import has_extras
from defectlab.results.workbook_row import KEY, Row, best_rows, ranked_within

Place = tuple[int, int]  # row, column

TITLE = Font(name="Calibri", size=12, bold=True)
WIDEST, NARROWEST, WIDEST_TITLE = 34, 16, 40
LINE_HEIGHT, IN_A_LINE = 15.5, 26  # points, and characters of a bold label in the widest column


def write_comparison(sheet: Worksheet, rows: Sequence[Row], before: Sequence[Row]) -> None:
    """Write the rows as blocks; `before` holds the rows of the previous update."""
    actual = read_cells(sheet)
    expected = {place: value for place, value in layout(before).items() if value is not None}
    if actual == expected and not has_extras(sheet):
        if actual:
            clear(sheet)
            for dimension in sheet.row_dimensions.values():
                dimension.height = None
        cells = layout(rows)
    else:
        cells = _around(actual, taken_cells(sheet), rows, before)
    best = best_rows(rows)
    by_name = rows_by_label(rows)
    for (line, at), value in sorted(cells.items()):
        write_value(sheet.cell(line, at), value)
    for block in find_blocks(read_cells(sheet)):
        _style_block(sheet, block, {label: by_name.get((block.title, label)) for label in block.labels}, best)
    if not actual:
        set_pages(sheet, 1)
    longest = max((len(title) for title, _ in by_name), default=0)
    first = sheet.column_dimensions["A"]
    first.width = max(NARROWEST, min(1.2 * longest + 2, WIDEST_TITLE), first.width)


def _around(actual: Cells, taken: Set[Place], rows: Sequence[Row], before: Sequence[Row]) -> Cells:
    """Return the cells to write into a sheet with a user's additions, with every existing block in its place."""
    old, new = titles(before), titles(rows)
    renamed = {old[key]: new[key] for key in old if key in new}
    shown = {(renamed.get(title, title), label): row for (title, label), row in rows_by_label(before).items()}
    wanted = rows_by_label(rows)
    cells: Cells = {}
    blocks: dict[str, Block] = {}
    for block in find_blocks(actual):
        blocks.setdefault(renamed.get(block.title, block.title), block)
    for (title, label), row in shown.items():  # clear the columns of removed rows
        if title in blocks and (title, label) not in wanted:
            at = blocks[title].labels.get(_label_on_sheet(blocks[title], label, row, known=True))
            cells |= dict.fromkeys(column(blocks[title].top, at, label, {})) if at else {}
    lines = {line for line, _ in taken}
    for (title, label), row in wanted.items():
        if title not in blocks:
            top = _free_top(lines)
            blocks[title] = Block(top, title, {})
            lines |= set(range(top, top + HEIGHT))
        block = blocks[title]
        label = _label_on_sheet(block, label, row, known=(title, label) in shown)
        if label not in block.labels:
            columns = {at for (line, at) in taken if block.top <= line < block.top + HEIGHT}
            free = next(free_after({1, *columns, *block.labels.values()}, COLUMN_GAP, MAX_COLUMNS))
            blocks[title] = block = Block(block.top, title, {**block.labels, label: free})
        cells |= frame(block.top, title) | column(block.top, block.labels[label], label, row)
    return cells


def _free_top(lines: Set[int]) -> int:
    """Return the first row of a new block: behind all others, where as many rows are free as it covers."""
    if not lines:
        return 1
    free = free_after(lines, ROW_GAP, MAX_ROWS)
    return next(top for top in (line + GAP for line in free) if not lines & set(range(top - GAP, top + HEIGHT)))


def _label_on_sheet(block: Block, label: str, row: Row, known: bool) -> str:
    """Return the label of a row's column, extended by its id where a user's own configuration has the same label."""
    own = f"{label} {str(row[KEY])[-6:]}"
    return own if own in block.labels or (label in block.labels and not known) else label


def _style_block(sheet: Worksheet, block: Block, shown: Mapping[str, Row | None], best: Mapping[Any, Any]) -> None:
    lines = max((-(-len(label) // IN_A_LINE) for label in block.labels if shown[label] is not None), default=1)
    if lines > 1:
        row_dimension = sheet.row_dimensions[block.top]
        row_dimension.height = max(lines * LINE_HEIGHT, row_dimension.height or 0.0)
    title = sheet.cell(block.top, 1)
    title.font, title.alignment = TITLE, Alignment(vertical="top", wrap_text=True)
    for label, at in block.labels.items():
        row = shown[label]
        if row is None:
            continue  # a configuration that a user added
        head = sheet.cell(block.top, at)
        head.font, head.fill, head.alignment = (
            BOLD,
            HEADER,
            Alignment(horizontal="right", vertical="top", wrap_text=True),
        )
        dimension = sheet.column_dimensions[get_column_letter(at)]
        dimension.width = max(NARROWEST, min(len(label) + 3, WIDEST), dimension.width)
        for place in range(1, HEIGHT):
            cell = sheet.cell(block.top + place, at)
            metric = str(sheet.cell(block.top + place, 1).value)
            cell.number_format = "0.0000"
            mark(cell, cell.value is not None and cell.value == best.get(ranked_within(row, metric)))
