"""Additions of a person to the sheet of runs."""

from helpers.runs import finished
from helpers.workbook import edit, open_book

from defectlab.results.workbook import read_workbook, update_workbook


def test_a_stray_cell_in_the_last_row_and_column_costs_nothing_and_rows_stay_together():
    update_workbook(finished("one"))
    edit(lambda book: [book[name].__setitem__("XFD1048576", "stray") for name in ("runs", "comparison")])
    update_workbook(finished("two", "cflow"))
    book = open_book()
    assert [row["run"] for row in read_workbook()] == ["one", "two"]
    assert book["runs"]["XFD1048576"].value == "stray"
    assert book["comparison"]["A8"].value == "CFlow"
    assert max(row for row, _ in book["runs"]._cells if row < 1_048_576) == 3
