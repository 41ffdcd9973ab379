"""Reading the configurations of a hand-kept workbook as rows."""

import logging
from collections.abc import Sequence
from pathlib import Path

from openpyxl.worksheet.worksheet import Worksheet

from defectlab.results.workbook.cells import read_cells
from defectlab.results.workbook.generated_sheets import is_generated
from defectlab.results.workbook.hand_kept_layout import find_blocks, import_blocks
from defectlab.results.workbook.open_workbook import COMPARISON, RUNS, find_sheet, load
from defectlab.results.workbook_row import Row
from defectlab.utils import paths
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)


def imported_rows(file: str | Path, dataset: str | None = None) -> list[Row]:
    """Return the configurations of a hand-kept workbook as rows, from every sheet except DefectLab's own.

    Raises:
        InputError: No such file, no workbook, no block, or a value that is no metric.
    """
    path = Path(file) if Path(file).is_file() else paths.resolve(file)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    book, values = load(path), load(path, values=True)
    ours = [find_sheet(book, RUNS), find_sheet(book, COMPARISON)] if find_sheet(book, RUNS) else []
    ours += [sheet for sheet in book.worksheets if is_generated(book, sheet)]
    sheets = [sheet for sheet in book.worksheets if sheet not in ours]
    found: list[Row] = []
    for sheet in sheets:
        source = f"{path.name}, sheet {sheet.title}"
        written, cells = read_cells(sheet), read_cells(values[sheet.title])
        unknown = [place for place in written if place not in cells]
        if find_blocks(cells):
            _check_formulas(sheet, unknown, source)
            found += import_blocks(cells, source, dataset or "not recorded")
        elif sheet.max_row > 1:
            logger.info("%s: no block of models, left out", source)
    if not found:
        own = "It is a workbook of DefectLab's own: its rows come from run folders, so copy those. " if ours else ""
        names = ", ".join(sheet.title for sheet in sheets) or "none"
        raise InputError(
            f"{path} has no block of models to import (sheets looked at: {names}). {own}A block is: the model's name "
            "in A and its configurations in B, C, ...; below it, in A, image_AUROC, image_F1Score, pixel_AUROC, "
            "pixel_F1Score."
        )
    return found


def _check_formulas(sheet: Worksheet, unknown: Sequence[tuple[int, int]], source: str) -> None:
    """Check that cells without a stored value hold no formula, which only a spreadsheet program could compute."""
    cells = [sheet.cell(*place).coordinate for place in unknown if sheet.cell(*place).data_type == "f"]
    if cells:
        raise InputError(
            f"{source}: cell {cells[0]} holds a formula without its value. Open the file in Excel or LibreOffice, save "
            "it, and import again."
        )
