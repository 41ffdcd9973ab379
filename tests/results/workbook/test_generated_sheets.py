"""What a person changed in the workbook or put into it stays."""

import openpyxl
import pytest
from helpers.runs import far_best_and_near, finished, measured
from helpers.workbook import edit, open_book
from openpyxl.styles import PatternFill

from defectlab.results.workbook import imported_rows, read_workbook, update_workbook
from defectlab.results.workbook.cells import read_cells
from defectlab.utils import paths


def test_a_sheet_that_a_person_changed_stays_as_it_is_and_a_new_one_is_made(caplog: pytest.LogCaptureFixture):
    far_best_and_near()
    update_workbook()

    def change(book):
        book["leaderboard"]["F12"] = "ask Olga"
        book["per defect"]["A1"].fill = PatternFill("solid", fgColor="FFFF00FF")
        book.move_sheet("about", -4)

    edit(change)
    before = read_cells(open_book()["leaderboard"])
    for number in range(2):
        update_workbook(measured(f"later {number}", 0.6, 5 + number))
    book = open_book()
    assert book.sheetnames == [
        "about", "comparison", "runs", "leaderboard", "per defect", "leaderboard (2)", "per defect (2)",
    ]  # fmt: skip
    assert read_cells(book["leaderboard"]) == before
    assert len(book["leaderboard"]._charts) == 1
    assert book["per defect"]["A1"].fill.fgColor.rgb == "FFFF00FF"
    assert book["leaderboard (2)"]["A1"].value == "coins: 5 configurations"
    assert "changed by hand" in caplog.text
    # the sheets of records are laid out anew all the same: nothing refers to them
    assert [cell.value for cell in book["runs"][1]][:2] == ["date (UTC)", "dataset"]


def test_a_persons_sheet_of_that_name_is_left_alone():
    book = openpyxl.Workbook()
    book.active.title = "leaderboard"
    book.active["A1"] = "chess"
    book.save(paths.workbook())
    for name in ("a", "b"):
        update_workbook(finished(name))
    book = open_book()
    assert book.sheetnames == ["leaderboard", "comparison", "runs", "leaderboard (2)", "per defect", "about"]
    assert read_cells(book["leaderboard"]) == {(1, 1): "chess"}


def test_our_own_sheets_are_never_taken_for_blocks_to_import():
    update_workbook(finished("one"))
    edit(lambda book: book.remove(book["comparison"]))
    from defectlab_runtime.errors import InputError

    with pytest.raises(InputError, match=r"sheets looked at: none"):
        imported_rows(paths.workbook())


@pytest.mark.parametrize("name", ["comparison", "runs", "leaderboard", "per defect", "about"])
@pytest.mark.parametrize("rename", [False, True])
def test_a_sheet_that_a_person_deleted_or_renamed_comes_back(name: str, rename: bool):
    update_workbook(finished("one"))

    def change(book):
        book.create_sheet("mine")["A1"] = f"='{name}'!B2"
        if rename:
            book[name].title = "old"
        else:
            book.remove(book[name])

    edit(change)
    for run in ("two", "three"):
        assert update_workbook(finished(run)).written
    titles = open_book().sheetnames
    assert sorted(titles) == sorted(
        ["comparison", "runs", "leaderboard", "per defect", "about", "mine", *["old"] * rename]
    )
    assert {row["run"] for row in read_workbook()} == {"one", "two", "three"}


def test_a_hidden_and_protected_sheet_stays_so():
    update_workbook(finished("one"))

    def change(book):
        book["about"].sheet_state = "hidden"
        book["leaderboard"].protection.sheet = True

    edit(change)
    update_workbook(finished("two"))
    book = open_book()
    assert book["about"].sheet_state == "hidden"
    assert book["leaderboard"].protection.sheet
    assert "leaderboard (2)" not in book.sheetnames
