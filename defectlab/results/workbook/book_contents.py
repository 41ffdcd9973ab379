"""What openpyxl has read of a workbook, counted as `package_check` counts what the file holds."""

from collections import Counter
from collections.abc import Mapping

from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from defectlab.results.workbook.package_check import (
    CELLS,
    CHART_SHEETS,
    DRAWN,
    LINKS,
    MERGED,
    NOTES,
    OTHER_FILES,
    PIVOTS,
    RULES,
    SERIES,
    TABLES,
    VALIDATIONS,
)


def not_read(book: Workbook, held: Mapping[str, int]) -> list[str]:
    """Return what a file holds (`Package.held`) and openpyxl has passed over in silence, as "1 of 2 notes".

    A reference with a wrong type is enough for that, an element with a name that openpyxl does not know, or a kind of
    chart or shape that it cannot read.
    """
    read = _count(book)
    return [f"{count - read[name]} of {count} {name}" for name, count in held.items() if read[name] < count]


def _count(book: Workbook) -> Counter[str]:
    read = Counter({OTHER_FILES: len(book._external_links), CHART_SHEETS: len(book.chartsheets)})
    for sheet in book._sheets:
        read[DRAWN] += len(sheet._charts)
        read[SERIES] += sum(len(plot.ser) for chart in sheet._charts for plot in chart._charts)
        if isinstance(sheet, Worksheet):
            read += _count_cells(sheet)
    return read


def _count_cells(sheet: Worksheet) -> Counter[str]:
    cells = sheet._cells.values()
    return Counter(
        {
            CELLS: sum(cell.value is not None for cell in cells),
            NOTES: sum(cell.comment is not None for cell in cells),
            LINKS: sum(cell.hyperlink is not None for cell in cells),
            DRAWN: len(sheet._images),
            TABLES: len(sheet.tables),
            PIVOTS: len(sheet._pivots),
            MERGED: len(sheet.merged_cells.ranges),
            RULES: sum(len(found.rules) for found in sheet.conditional_formatting),
            VALIDATIONS: len(sheet.data_validations.dataValidation),
        }
    )
