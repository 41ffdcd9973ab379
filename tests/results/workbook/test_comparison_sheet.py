"""The sheet that compares configurations side by side."""

from helpers.runs import finished
from helpers.workbook import open_book

from defectlab.results.workbook import update_workbook


def test_long_labels_of_the_comparison_wrap_into_rows_high_enough_and_its_titles_are_whole():
    finished("a_label_of_a_configuration_that_is_longer_than_a_column_is_wide_seed-43", dataset="a longish dataset")
    update_workbook(finished("short"))
    sheet = open_book()["comparison"]
    heads = {sheet.cell(row, 1).value: row for row in range(1, sheet.max_row + 1) if sheet.cell(row, 2).value}
    long, short = (next(row for title, row in heads.items() if name in title) for name in ("longish", "coins"))
    assert sheet.cell(long, 2).alignment.wrap_text
    assert sheet.row_dimensions[long].height >= 3 * 15
    assert sheet.row_dimensions[short].height in (None, 15)
    assert sheet.column_dimensions["A"].width > len("PaDiM (a longish dataset)")
