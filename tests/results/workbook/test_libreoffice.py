"""A workbook that LibreOffice opens and saves again and again keeps its rows and what a person added."""

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from helpers.runs import finished, scored
from helpers.workbook import edit, open_book
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.drawing.image import Image
from PIL import Image as Pixels

from defectlab.results.workbook import read_workbook, update_workbook
from defectlab.utils import paths

MINE = {"A1": "lamp replaced", "B2": 42, "C3": "=1+1", "D700": "far below"}
TURNS = 3


def add_persons_sheet(book: openpyxl.Workbook) -> None:
    sheet = book.create_sheet("mine", 0)
    for place, value in MINE.items():
        sheet[place] = value
    sheet["A1"].comment = Comment("new lamp", "Olga")
    chart = BarChart()
    chart.add_data(Reference(book["runs"], min_col=5, min_row=1, max_row=3))
    sheet.add_chart(chart, "F4")
    picture = BytesIO()
    Pixels.fromarray(np.full((4, 4, 3), 200, np.uint8)).save(picture, "PNG")
    sheet.add_image(Image(picture), "F30")


def save_in_libreoffice(book: Path, work: Path) -> None:
    profile = f"-env:UserInstallation={(work / 'profile').as_uri()}"
    command = ["soffice", "--headless", profile, "--convert-to", "xlsx", "--outdir", str(work), str(book)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (work / book.name).replace(book)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("soffice") is None, reason="needs LibreOffice (soffice)")
def test_three_turns_of_libreoffice_and_update_keep_rows_sheet_chart_picture_and_note(tmp_path: Path):
    runs = [
        scored("near", 0.5, 0, count=6),
        scored("far", 3.0, 1, count=6),
        finished("flow", "cflow", dataset="bottle"),
    ]
    update_workbook()
    edit(add_persons_sheet)
    titles = open_book().sheetnames
    (tmp_path / "office").mkdir()
    for turn in range(TURNS):
        save_in_libreoffice(paths.workbook(), tmp_path / "office")
        assert {row["run"] for row in read_workbook()} == {run.record.name for run in runs}
        runs.append(finished(f"turn{turn}"))
        assert update_workbook(runs[-1]).written
        book = open_book()
        assert book.sheetnames == titles
        assert sorted(row["run"] for row in read_workbook()) == sorted(run.record.name for run in runs)
        sheet = book["mine"]
        assert {place: sheet[place].value for place in MINE} == MINE
        assert (len(sheet._charts), len(sheet._images)) == (1, 1)
        assert sheet["A1"].comment is not None
        assert "new lamp" in sheet["A1"].comment.text
    others = sorted(file.name for file in paths.workbook().parent.glob("*.xlsx") if file != paths.workbook())
    assert others == []
