"""Rows taken in from workbooks that were kept by hand."""

from pathlib import Path
from typing import Any

import openpyxl
import pytest
from helpers.runs import finished
from helpers.workbook import edit, open_book, table

from defectlab.cli import main
from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.results.workbook import imported_rows, update_workbook
from defectlab.results.workbook.cells import read_cells
from defectlab.results.workbook.generated_sheets import GENERATED
from defectlab.utils import paths
from defectlab_runtime.errors import InputError


def old_workbook(path: Path) -> dict[tuple[int, int], Any]:
    """A workbook as people keep it by hand: one sheet, three blocks, one number typed with a comma."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Лист1"
    values = {
        "PaDiM": [[0.707, 0.924, 0.939, 0.738], [0.718, "0,925", 0.942, 0.757]],
        "PatchCore": [[0.827, 1, 0.9, 0]],
    }
    for number, (model, columns) in enumerate(values.items()):
        top = 1 + 7 * number
        sheet.cell(top, 1, model)
        for place, metric in enumerate(BARE_METRICS, 1):
            sheet.cell(top + place, 1, metric)
        for column, numbers in enumerate(columns, 2):
            sheet.cell(top, column, f"ResNet18 {column}")
            for place, value in enumerate(numbers, 1):
                sheet.cell(top + place, column, value)
    book.save(path)
    return read_cells(sheet)


def test_an_old_workbook_keeps_its_sheet_and_its_blocks_can_be_taken_in():
    before = old_workbook(paths.workbook())
    update_workbook(finished("new"))
    book = open_book()
    assert book.sheetnames == ["Лист1", "comparison", "runs", *GENERATED]
    assert read_cells(book["Лист1"]) == before
    for _ in range(2):  # the second time changes nothing
        assert main(["compare", "--import", str(paths.workbook()), "--dataset", "plates"]) == 0
    rows = table()
    assert len(rows) == 4
    imported = [row for row in rows if row["state"] == "imported"]
    assert [(row["model"], row["run"], row["image_F1Score"]) for row in imported] == [
        ("PaDiM", "ResNet18 2", 0.924), ("PaDiM", "ResNet18 3", 0.925), ("PatchCore", "ResNet18 2", 1),
    ]  # fmt: skip
    assert {row["dataset"] for row in imported} == {"plates"}
    assert all(row["checkpoint"] is None for row in imported)
    assert read_cells(open_book()["Лист1"]) == before
    update_workbook(prune=True)
    assert len(table()) == 4


def test_importing_names_the_cell_that_is_no_metric(tmp_path: Path):
    old_workbook(tmp_path / "old.xlsx")
    book = openpyxl.load_workbook(tmp_path / "old.xlsx")
    book["Лист1"]["C3"] = 92.5
    book.save(tmp_path / "old.xlsx")
    with pytest.raises(InputError, match=r"cell C3: 92\.5 is no metric"):
        imported_rows(tmp_path / "old.xlsx")
    assert not paths.workbook().exists()
    empty = openpyxl.Workbook()
    empty.save(tmp_path / "empty.xlsx")
    with pytest.raises(InputError, match="no block"):
        imported_rows(tmp_path / "empty.xlsx")
    with pytest.raises(InputError, match="no file"):
        imported_rows("nowhere.xlsx")
    (tmp_path / "text.xlsx").write_text("hello")
    with pytest.raises(InputError, match="cannot be read"):
        imported_rows(tmp_path / "text.xlsx")


def test_imported_rows_are_known_without_their_state(tmp_path: Path):
    old_workbook(tmp_path / "old.xlsx")
    update_workbook(imported=imported_rows(tmp_path / "old.xlsx"))
    edit(lambda book: book["runs"].delete_cols(next(c.column for c in book["runs"][1] if c.value == "state")))
    update_workbook(prune=True)
    assert {row["state"] for row in table()} == {"imported"}
    assert len(table()) == 3


def test_importing_again_after_a_column_was_inserted_changes_nothing(tmp_path: Path):
    old_workbook(tmp_path / "old.xlsx")
    first = imported_rows(tmp_path / "old.xlsx", "plates")
    book = openpyxl.load_workbook(tmp_path / "old.xlsx")
    book["Лист1"].insert_cols(2)
    book["Лист1"]["B1"], book["Лист1"]["B2"] = "newest", 0.4
    book.save(tmp_path / "renamed.xlsx")
    again = imported_rows(tmp_path / "renamed.xlsx", "plates")
    assert {row["run_id"] for row in first} < {row["run_id"] for row in again}
    assert len(again) == len(first) + 1


def test_a_formula_without_its_value_is_not_imported_as_nothing(tmp_path: Path):
    old_workbook(tmp_path / "old.xlsx")
    book = openpyxl.load_workbook(tmp_path / "old.xlsx")
    book["Лист1"]["B2"] = "=0.5+0.4"
    book.save(tmp_path / "old.xlsx")
    with pytest.raises(InputError, match=r"cell B2 holds a formula without its value\. Open the file"):
        imported_rows(tmp_path / "old.xlsx")


def test_an_import_that_cannot_be_written_says_to_do_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    old_workbook(tmp_path / "old.xlsx")

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "open in another program")

    monkeypatch.setattr(Path, "replace", refuse)
    assert main(["compare", "--import", str(tmp_path / "old.xlsx")]) == 1
    assert "run the same command again" in caplog.text
