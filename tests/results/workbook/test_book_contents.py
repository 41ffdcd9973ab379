"""What openpyxl passes over in silence is noticed, and the file as it was is kept."""

import re
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from helpers.runs import finished
from helpers.workbook import open_book
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.drawing.image import Image
from openpyxl.formatting.rule import ColorScaleRule
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.table import Table
from PIL import Image as Pixels

from defectlab.results.workbook import update_workbook
from defectlab.results.workbook.package_check import COUNTED, read_package
from defectlab.utils import paths


def add_persons_sheet(book: openpyxl.Workbook) -> None:
    sheet = book.create_sheet("mine", 0)
    for column, header in enumerate("abc", 1):
        sheet.cell(1, column, header)
        sheet.cell(2, column, column)
    sheet["A2"].comment, sheet["B2"].comment = Comment("new lamp", "Olga"), Comment("old lamp", "Ben")
    sheet["C2"].hyperlink = "https://example.org"
    sheet.add_table(Table(displayName="all", ref="A1:C2"))
    sheet.merge_cells("E1:F2")
    sheet.conditional_formatting.add("A2:C2", ColorScaleRule("min", None, "FFFFFFFF", "max", None, "FF00FF00"))
    rule = DataValidation("list", formula1='"a,b"')
    rule.add("B3")
    sheet.add_data_validation(rule)
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=1, max_col=2, min_row=1, max_row=2))
    sheet.add_chart(chart, "F4")
    picture = BytesIO()
    Pixels.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture, "PNG")
    sheet.add_image(Image(picture), "F30")
    book.create_chartsheet("curves").add_chart(BarChart())


def change_parts(pattern: str, old: str, new: str) -> bytes:
    """Change the text of the parts whose names match, and return the file; something is changed."""
    before = BytesIO(paths.workbook().read_bytes())
    changed = 0
    with zipfile.ZipFile(before) as archive, zipfile.ZipFile(paths.workbook(), "w") as written:
        for name in archive.namelist():
            text = archive.read(name)
            if re.fullmatch(pattern, name):
                changed += text.count(old.encode())
                text = text.replace(old.encode(), new.encode())
            written.writestr(name, text)
    assert changed
    return paths.workbook().read_bytes()


def copies() -> list[Path]:
    return list(paths.workbook().parent.glob("models_comparing_before_*.xlsx"))


@pytest.fixture
def persons_book() -> None:
    update_workbook(finished("one"))
    book = open_book()
    add_persons_sheet(book)
    book.save(paths.workbook())


SHEET, RELATIONS, DRAWING = (
    "xl/worksheets/sheet1.xml",
    "xl/worksheets/_rels/sheet1.xml.rels",
    "xl/drawings/drawing1.xml",
)


@pytest.mark.usefixtures("persons_book")
@pytest.mark.parametrize(
    ("pattern", "old", "new", "said"),
    [  # the first is seed 100217 of the fuzzer
        (RELATIONS, 'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/comments"',
         'Type="httpp://schemas.openxmlformats.org/officeDocument/2006/relationships/comments"', "2 of 2 notes"),
        (RELATIONS, "relationships/drawing", "relationships/drawinf", "2 of 4 charts, pictures"),
        ("xl/drawings/_rels/.*", "relationships/image", "relationships/imagf", "1 of 4 charts, pictures"),
        (DRAWING, "oneCellAnchor", "oneCellAnchos", "2 of 4 charts, pictures"),
        (SHEET, "row", "rox", " cells)"),
        (SHEET, "mergeCells", "mergeCellt", "1 of 1 merged cells"),
        (SHEET, "dataValidations", "dataValidationt", "1 of 1 data validations"),
        (SHEET, "conditionalFormatting", "conditionalFormattinf", "conditional formats"),
        (SHEET, "hyperlinks", "hyperlinkt", "1 of 1 links of cells"),
        (SHEET, "tableParts", "tablePartt", "1 of 1 tables"),
    ],
)  # fmt: skip
def test_what_a_damaged_name_or_reference_hides_is_kept_in_a_copy(
    pattern: str, old: str, new: str, said: str, caplog: pytest.LogCaptureFixture
):
    content = change_parts(pattern, old, new)
    update_workbook(finished("two"))
    assert said in caplog.text
    (copy,) = copies()
    assert copy.read_bytes() == content
    update_workbook(finished("three"))
    assert copies() == [copy]


@pytest.mark.usefixtures("persons_book")
def test_a_whole_workbook_is_read_whole_and_never_copied():
    held = read_package(paths.workbook()).held
    assert [name for name in COUNTED if not held[name]] == ["pivot tables", "links to other workbooks"]
    update_workbook(finished("two"))
    assert read_package(paths.workbook()).held["notes"] == 2
    assert copies() == []
