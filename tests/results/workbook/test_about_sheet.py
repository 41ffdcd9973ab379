"""The sheet that explains the others."""

from helpers.runs import finished
from helpers.workbook import open_book

from defectlab.results.workbook import update_workbook
from defectlab.results.workbook.cells import read_cells


def test_about_explains_every_word_and_column():
    update_workbook(finished("one"))
    book = open_book()
    text = " ".join(str(value) for value in read_cells(book["about"]).values())
    for word in ("oracle", "tied with the best", "interval", "trivial detector", "a seeded 50% of the test images"):
        assert word in text
    unexplained = {header for header in column_names(book["leaderboard"]) if header not in text}
    assert unexplained == {"image_AUPR", "pixel_AUPRO"}  # told without their level
    assert {"AUPR", "AUPRO"} <= set(text.split())


def column_names(sheet) -> set[str]:
    return {cell.value for cell in sheet[3] if cell.value and not str(cell.value).startswith("chart")}
