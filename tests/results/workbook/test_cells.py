"""Text in cells is text, whatever it begins with."""

from io import BytesIO

import openpyxl
import pytest

from defectlab.results.workbook.cells import put, write_value
from defectlab.results.workbook.runs_sheet import write_runs
from defectlab.results.workbook_row import IMPORTED, KEY


@pytest.mark.parametrize(
    ("value", "shown", "quoted"),
    [
        ("=1+1", "=1+1", True),
        ("+cmd|' /C calc'!A0", "+cmd|' /C calc'!A0", True),
        ("@SUM(A1)", "@SUM(A1)", True),
        ("#N/A", "#N/A", False),
        ("nul\0 \ufffe \udcff\r", "nul\\x00 \\ufffe \\udcff\\r", False),
        ("two\nlines", "two\nlines", False),
        ("2026-01-01", "2026-01-01", False),
    ],
)
def test_text_is_text_after_a_save_too(value: str, shown: str, quoted: bool):
    book, stream = openpyxl.Workbook(), BytesIO()
    put(book.active, 1, 1, value)
    put(book.active, 2, 1, -0.5)
    book.save(stream)
    cell, number = (openpyxl.load_workbook(stream).active.cell(row, 1) for row in (1, 2))
    assert (cell.value, cell.data_type, bool(cell.quotePrefix)) == (shown, "s", quoted)
    assert (number.value, number.data_type) == (-0.5, "n")


def test_a_text_that_is_too_long_for_excel_is_shortened_with_a_hash():
    sheet = openpyxl.Workbook().active
    first, second = put(sheet, 1, 1, "x" * 40_000).value, put(sheet, 1, 2, "x" * 40_001).value
    assert len(first) <= 32_767
    assert first != second


def test_a_formula_of_a_person_stays_in_an_imported_row_and_becomes_text_in_a_run_of_ours():
    sheet = openpyxl.Workbook().active
    rows = [{KEY: f"{IMPORTED}-1", "run": "by hand"}, {KEY: "0123456789ab", "run": "ours"}]
    write_runs(sheet, rows)
    at = next(cell.column for cell in sheet[1] if cell.value == "run")
    for row in (2, 3):
        sheet.cell(row, at).value = "=1+1"
    write_runs(sheet, [row | {"run": "=1+1"} for row in rows])
    assert [(sheet.cell(row, at).value, sheet.cell(row, at).data_type) for row in (2, 3)] == [
        ("=1+1", "f"),
        ("=1+1", "s"),
    ]


def test_a_cell_inside_a_merged_range_is_left_alone():
    sheet = openpyxl.Workbook().active
    sheet.merge_cells("A1:B1")
    write_value(sheet["B1"], "=1+1")
    assert sheet["B1"].value is None
