"""The test's own workbook, as a person opens and changes it."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.drawing.image import Image
from PIL import Image as Pixels

from defectlab.utils import paths

PERSONS_CELLS = {"A1": "lamp replaced", "B2": 42, "C3": "=1+1", "D700": "far below"}


def add_persons_sheet(book: openpyxl.Workbook) -> None:
    """Add a sheet "mine" before the others, with `PERSONS_CELLS`, a note, a chart and a picture."""
    sheet = book.create_sheet("mine", 0)
    for place, value in PERSONS_CELLS.items():
        sheet[place] = value
    sheet["A1"].comment = Comment("new lamp", "Olga")
    chart = BarChart()
    chart.add_data(Reference(book["runs"], min_col=5, min_row=1, max_row=3))
    sheet.add_chart(chart, "F4")
    picture = BytesIO()
    Pixels.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture, "PNG")
    sheet.add_image(Image(picture), "F30")


def open_book(path: Path | None = None) -> openpyxl.Workbook:
    return openpyxl.load_workbook(path or paths.workbook())


def edit(change: Callable[[openpyxl.Workbook], object]) -> None:
    book = open_book()
    change(book)
    book.save(paths.workbook())


def table(book=None) -> list[dict[str, Any]]:
    """The runs sheet as a person's own script would read it."""
    headers, *rows = (book or open_book())["runs"].iter_rows(values_only=True)
    return [dict(zip(headers, row, strict=True)) for row in rows]
