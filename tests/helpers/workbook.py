"""The test's own workbook, as a person opens and changes it."""

from collections.abc import Callable
from pathlib import Path

import openpyxl

from defectlab.utils import paths


def open_book(path: Path | None = None) -> openpyxl.Workbook:
    return openpyxl.load_workbook(path or paths.workbook())


def edit(change: Callable[[openpyxl.Workbook], object]) -> None:
    book = open_book()
    change(book)
    book.save(paths.workbook())
