"""What a person does to the workbook's own sheets in a spreadsheet program."""

import random
from io import BytesIO

import numpy as np
from openpyxl import Workbook
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.drawing.image import Image
from openpyxl.formatting.rule import ColorScaleRule
from openpyxl.styles import Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.workbook.defined_name import DefinedName
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.table import Table
from openpyxl.worksheet.worksheet import Worksheet
from PIL import Image as Pixels

VALUES = ("n/a", "=1/0", "#REF!", True, -1, 1e300, "x" * 32_000, "", "image_AUROC", "run_id", "PaDiM", 0.5, None)


def delete_sheet(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    book.remove(sheet)


def rename_sheet(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    sheet.title = random.choice(("old", sheet.title + " (DefectLab)", sheet.title + " (2)", "Blatt '1'", "лист"))


def change_case(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    name = sheet.title
    sheet.title = "between"
    sheet.title = name.capitalize()


def move_sheet(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    book.move_sheet(sheet, random.randrange(-6, 7))


def hide_sheet(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    sheet.sheet_state = random.choice(("hidden", "veryHidden"))


def hide_all_others(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    for other in book.worksheets:
        other.sheet_state = "visible" if other is sheet else "hidden"


def copy_sheet(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    book.copy_worksheet(sheet)


def protect(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    sheet.protection.sheet = True
    sheet.protection.password = "secret"
    if random.random() < 0.5:
        book.security.lockStructure = True


def _cell(random: random.Random, sheet: Worksheet) -> tuple[int, int]:
    return random.randint(1, min(sheet.max_row, 40) + 2), random.randint(1, min(sheet.max_column, 150) + 2)


def type_over(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    for _ in range(random.choice((1, 5))):
        _set(sheet, *_cell(random, sheet), random.choice(VALUES))


def clear_rows(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    first, _ = _cell(random, sheet)
    for row in sheet.iter_rows(first, first + random.choice((0, 4, 100)), 1, min(sheet.max_column, 150)):
        for cell in row:
            _set(sheet, cell.row, cell.column, None)


def clear_sheet(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    for cell in list(sheet._cells.values()):
        _set(sheet, cell.row, cell.column, None)


def _set(sheet: Worksheet, row: int, column: int, value: object) -> None:
    if type(sheet.cell(row, column)).__name__ != "MergedCell":
        sheet.cell(row, column).value = value


def delete_rows(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    if sheet.max_row < 1000:
        sheet.delete_rows(_cell(random, sheet)[0], random.choice((1, 5)))


def delete_columns(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    if sheet.max_column < 1000 and sheet.max_row < 1000:
        sheet.delete_cols(_cell(random, sheet)[1], random.choice((1, 3)))


def insert_rows(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    if sheet.max_column < 1000 and sheet.max_row < 1000:
        random.choice((sheet.insert_rows, sheet.insert_cols))(random.randint(1, 4), 2)


def merge(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    row, column = random.choice((1, _cell(random, sheet)[0])), random.choice((1, _cell(random, sheet)[1]))
    sheet.merge_cells(
        start_row=row,
        end_row=row + random.choice((0, 1, 4)),
        start_column=column,
        end_column=column + random.choice((1, 5)),
    )


def stray_cell(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    sheet[random.choice(("A1048576", "XFD1", "XFD1048576", "B900000", "ZZ3"))] = "stray"


def colour(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    cell = sheet.cell(*_cell(random, sheet))
    cell.fill, cell.font = PatternFill("solid", fgColor="FFFF00FF"), Font(bold=True)


def style_columns(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    dimension = sheet.column_dimensions[get_column_letter(_cell(random, sheet)[1])]
    dimension.fill, dimension.hidden = PatternFill("solid", fgColor="FFFF00FF"), random.random() < 0.5
    dimension.max = random.choice((dimension.min, 16384))


def condition(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    rule = ColorScaleRule(start_type="min", start_color="FFFFFFFF", end_type="max", end_color="FF00FF00")
    sheet.conditional_formatting.add("A1:D1048576", rule)


def no_conditions(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    sheet.conditional_formatting = type(sheet.conditional_formatting)()


def filter_rows(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    sheet.auto_filter.ref = random.choice((None, "A1:C9"))
    if sheet.auto_filter.ref:
        sheet.auto_filter.add_filter_column(1, ["coins"])
        sheet.row_dimensions[3].hidden = True


def make_table(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    if not sheet.tables and sheet.max_row < 1000 and all(isinstance(cell.value, str) for cell in sheet[1][:3]):
        sheet.auto_filter.ref = None
        sheet.add_table(Table(displayName=f"Table{len(book.sheetnames)}x{random.randrange(999)}", ref="A1:C3"))


def name_cells(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    names = random.choice((book.defined_names, sheet.defined_names))
    target = random.choice((f"'{sheet.title}'!$A$1:$C$9", "#REF!", "1+1", "[1]other!$A$1"))
    names["best"] = DefinedName("best", attr_text=target)


def comment(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    cell = sheet.cell(*_cell(random, sheet))
    if type(cell).__name__ != "MergedCell":
        cell.comment = Comment("ask Olga", "Olga")


def validate(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    rule = DataValidation(type="list", formula1='"yes,no"')
    rule.add("A1:A1048576")
    sheet.add_data_validation(rule)


def add_chart(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=1, min_row=1, max_row=4))
    sheet.add_chart(chart, "D4")


def chart_sheet(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=1, min_row=1, max_row=4))
    book.create_chartsheet(random.choice(("Chart1", "leaderboard (2)", "runs (DefectLab)")), 0).add_chart(chart)


def add_picture(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    picture = BytesIO()
    Pixels.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture, "PNG")
    sheet.add_image(Image(picture), "B2")


def refer(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    book["mine"]["H1"] = f"='{sheet.title}'!F4"


def lose_properties(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    """What a program without custom document properties leaves."""
    for name in list(book.custom_doc_props.names):
        del book.custom_doc_props[name]


def own_sheet(random: random.Random, book: Workbook, sheet: Worksheet) -> None:
    book.create_sheet(random.choice(("runs (DefectLab)", "comparison (DefectLab)", "leaderboard (2)", "about (3)")))[
        "A1"
    ] = "x"


EDITS = (
    delete_sheet, delete_sheet, rename_sheet, rename_sheet, change_case, move_sheet, hide_sheet, hide_all_others,
    copy_sheet, protect, type_over, clear_rows, clear_sheet, delete_rows, delete_columns, insert_rows, merge, merge,
    stray_cell, colour, style_columns, condition, no_conditions, filter_rows, make_table, name_cells, comment, validate,
    add_chart, chart_sheet, add_picture, refer, lose_properties, own_sheet,
)  # fmt: skip
