"""Opening or creating the workbook, and finding DefectLab's own sheets among a user's."""

import logging
import os
import shutil
import warnings
import zipfile
import zlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from defectlab.results.workbook.hand_kept_layout import find_blocks
from defectlab.results.workbook_row import KEY
from defectlab.utils.errors import InputError

if TYPE_CHECKING:
    from openpyxl import Workbook
    from openpyxl.worksheet.worksheet import Worksheet

logger = logging.getLogger(__name__)

RUNS, COMPARISON = "runs", "comparison"
# Content that openpyxl drops silently on loading, with the byte string that identifies it in the file.
_DROPPED = {"text boxes or shapes": b"<xdr:sp>", "shapes": b"<xdr:sp ", "sparklines": b"sparklineGroup"}


def open_book(path: Path) -> "Workbook":
    """Open or create the workbook; an unreadable file is renamed, and one that would lose content is copied first."""
    from openpyxl import Workbook

    if not path.is_file() or not path.stat().st_size:
        book = Workbook()
        book.remove(book.worksheets[0])
        return book
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            book = load(path)
        dropped = _dropped(path)
    except InputError as error:
        aside = _copy_name(path, "unreadable")
        path.rename(aside)
        logger.warning("%s It is kept as %s; a new workbook is made from the records.", error, aside.name)
        return open_book(path)
    lost = [str(one.message) for one in said if "removed" in str(one.message) or "not supported" in str(one.message)]
    lost += dropped
    if lost:
        copy = _copy_name(path, "before")
        shutil.copy2(path, copy)
        logger.warning(
            "%s holds what cannot be carried over (%s): the file as it was is kept as %s",
            path.name, "; ".join(dict.fromkeys(lost)), copy.name,
        )  # fmt: skip
    return book


def load(path: Path, values: bool = False) -> "Workbook":
    """Read a workbook with its formulas, or with the last `values` that a spreadsheet program saved for them.

    Raises:
        InputError: The file is no workbook.
    """
    from openpyxl import load_workbook

    try:
        return load_workbook(path, rich_text=not values, data_only=values)
    except OSError:
        raise  # not the file's content
    except Exception as error:  # a damaged file can fail anywhere in zip, zlib, XML or openpyxl
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as an .xlsx workbook ({type(error).__name__}: {error}).")


def _dropped(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            parts = [name for name in names if name.startswith(("xl/drawings/drawing", "xl/worksheets/sheet"))]
            texts = [archive.read(name) for name in parts]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:  # a part that openpyxl passed over
        raise _unreadable(path, error) from error
    return [what for what, mark in _DROPPED.items() if any(mark in text for text in texts)]


def _copy_name(path: Path, why: str) -> Path:
    return path.with_name(f"{path.stem}_{why}_{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.getpid()}{path.suffix}")


def find_sheet(book: "Workbook", name: str) -> "Worksheet | None":
    """Return DefectLab's sheet of this name (in any case), or None; a user's sheet of the same name is ignored."""
    from defectlab.results.workbook.cells import headers_of, read_cells

    for sheet in book.worksheets:
        if sheet.title.lower() not in (name, _second_name(name).lower()):
            continue
        if KEY in headers_of(sheet) if name == RUNS else find_blocks(read_cells(sheet)):
            return sheet
    return None


def create_sheet(book: "Workbook", name: str) -> "Worksheet":
    """Add a sheet for DefectLab, under a second name if a user's sheet already has this name."""
    taken = {sheet.title.lower() for sheet in book.worksheets}
    title = name if name not in taken else _second_name(name)
    if title != name:
        logger.warning("The workbook has a sheet %s that is not DefectLab's: writing to %s", name, title)
    return book.create_sheet(title)


def _second_name(name: str) -> str:
    return f"{name} (DefectLab)"
