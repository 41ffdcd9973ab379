"""models_comparing.xlsx: what it shows, what it keeps, and that many may write it at once."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from helpers.runs import finished
from helpers.workbook import edit, open_book, table
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.styles import PatternFill
from openpyxl.worksheet.table import Table

import defectlab
from defectlab.cli import main
from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.results.run.run import Run
from defectlab.results.workbook import best_table, read_workbook, update_workbook
from defectlab.results.workbook.cells import BEST, read_cells
from defectlab.results.workbook.generated_sheets import GENERATED
from defectlab.results.workbook.hand_kept_layout import find_blocks
from defectlab.results.workbook_row import GRID
from defectlab.utils import paths
from defectlab_runtime.errors import InputError

CHECKOUT = Path(defectlab.__file__).parents[1]


def test_a_finished_run_is_a_typed_row_with_every_option_in_a_column_of_its_own():
    run = finished("r18_100")
    update_workbook(run)
    (row,) = table()
    # a cell keeps sixteen digits
    assert {key: row[key] for key in BARE_METRICS} == pytest.approx(run.record.metrics, rel=1e-15)
    assert isinstance(row["date (UTC)"], datetime)
    expected = {
        "dataset": "coins",
        "model": "PaDiM",
        "backbone": "resnet18",
        "weights": "resnet18.pth",
        "run": "r18_100",
        "seed": 42,
        "model.layers": "layer1, layer2",
        "model.n_features": 100,
        "data.num_workers": 2,
        "data.root": "data/coins",
        "trainer.max_epochs": 1,
        "image_threshold": 1.5,
        "pixel_threshold": 0.75,
        "threshold_rule": "f1",
        "thresholds_from": "validation",
        "fit_seconds": 12.5,
        "train_images": 5,
        "checkpoint": "weights/lightning/model.ckpt",
        "record": "results/Padim/coins/r18_100",
        "state": "finished",
    }
    assert {key: row[key] for key in expected} == expected
    sheet = open_book()["runs"]
    assert sheet.freeze_panes == "A2"
    assert sheet.auto_filter.ref == sheet.dimensions
    assert all(sheet.column_dimensions[letter].width > 8 for letter in "ABCDEF")


def test_the_comparison_is_laid_out_as_hand_kept_workbooks_are():
    for name in ("a", "b"):
        update_workbook(finished(name, "padim"))
    run = finished("c", "patchcore", options={"layers": ["layer2"], "num_neighbors": 9})
    update_workbook(run)
    update_workbook(finished("d", "cflow"))
    sheet = open_book()["comparison"]
    assert [sheet.cell(row, 1).value for row in (1, 8, 15)] == ["PaDiM", "PatchCore", "CFlow"]
    assert [sheet.cell(1, column).value for column in (2, 3)] == ["a", "b"]
    assert [sheet.cell(row, 1).value for row in range(2, 6)] == list(BARE_METRICS)
    shown = [sheet.cell(row, 2).value for row in range(9, 13)]
    assert shown == pytest.approx([run.record.metrics[metric] for metric in BARE_METRICS], rel=1e-15)
    assert all(cell.value is None for row in (6, 7, 13, 14) for cell in sheet[row])
    assert open_book().sheetnames == ["comparison", "runs", *GENERATED]


def marked(sheet) -> set[tuple[int, int]]:
    return {
        (cell.row, cell.column)
        for row in sheet.iter_rows()
        for cell in row
        if cell.fill.fgColor.rgb == BEST.fgColor.rgb
    }


def test_the_best_value_of_each_metric_is_marked_within_its_dataset_and_unmarked_when_beaten():
    update_workbook(finished("low", metrics={"image_AUROC": 0.6}))
    update_workbook(finished("high", metrics={"image_AUROC": 0.7}))
    update_workbook(finished("other", dataset="bottle", metrics={"image_AUROC": 0.5}))
    book = open_book()
    headers = [cell.value for cell in book["runs"][1]]
    column, names = headers.index("image_AUROC") + 1, headers.index("run") + 1

    def best() -> set[str]:
        sheet = open_book()["runs"]
        return {sheet.cell(row, names).value for row, at in marked(sheet) if at == column}

    assert best() == {"high", "other"}
    update_workbook(finished("higher", metrics={"image_AUROC": 0.8}))
    assert best() == {"higher", "other"}
    comparison = open_book()["comparison"]
    titles = [block.title for block in find_blocks(read_cells(comparison))]
    assert titles == ["PaDiM (coins)", "PaDiM (bottle)"]
    assert {at for row, at in marked(comparison) if row == 2} == {4}


def test_the_same_experiment_again_replaces_its_row():
    update_workbook(finished("one", metrics={"image_AUROC": 0.6}))
    update_workbook(finished("one", metrics={"image_AUROC": 0.7}))
    assert [row["image_AUROC"] for row in table()] == [0.7]


def test_columns_notes_formulas_and_sheets_of_a_person_stay_where_they_are():
    first = finished("one")
    update_workbook(first)
    book = open_book()
    sheet = book["runs"]
    right, names = sheet.max_column + 1, [cell.value for cell in sheet[1]]
    at = names.index("image_AUROC") + 1
    letter = openpyxl.utils.get_column_letter(at)
    sheet.cell(1, right, "verdict").fill = PatternFill("solid", fgColor="FFFFCC00")
    sheet.cell(2, right, "ask Olga")
    sheet.cell(2, right + 1, f"=ROUND({letter}2, 2)")
    sheet.cell(2, at).comment = Comment("new lamp", "Olga")
    sheet.column_dimensions[openpyxl.utils.get_column_letter(right)].width = 33
    notes = book.create_sheet("our notes")
    notes["A1"], notes["B2"] = "lamp replaced", f"=runs!{letter}2"
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=at, min_row=1, max_row=2))
    notes.add_chart(chart, "D4")
    comparison = book["comparison"]
    comparison["A6"], comparison["B6"], comparison["C1"], comparison["C2"] = "note", "good light", "by hand", 0.5
    book.save(paths.workbook())

    for number in range(3):
        options = {"layers": ["layer2"], f"new_option_{number}": number}
        update_workbook(finished(f"later {number}", "cflow", options=options))
    update_workbook(finished("one", metrics={"image_AUROC": 0.123}))
    book = open_book()
    sheet, comparison = book["runs"], book["comparison"]
    assert sheet.cell(1, right).value == "verdict"
    assert sheet.cell(1, right).fill.fgColor.rgb == "FFFFCC00"
    assert [sheet.cell(2, column).value for column in (right, right + 1)] == ["ask Olga", f"=ROUND({letter}2, 2)"]
    assert sheet.cell(1, at).value == "image_AUROC"
    assert sheet.cell(2, at).value == 0.123
    assert sheet.cell(2, at).comment.text == "new lamp"
    assert sheet.column_dimensions[openpyxl.utils.get_column_letter(right)].width == 33
    assert book["our notes"]["A1"].value == "lamp replaced"
    assert book["our notes"]["B2"].value == f"=runs!{letter}2"
    assert len(book["our notes"]._charts) == 1
    assert [comparison[name].value for name in ("A6", "B6", "C1", "C2")] == ["note", "good light", "by hand", 0.5]
    assert comparison["B2"].value == 0.123
    assert [comparison.cell(comparison.max_row - 4, column).value for column in range(1, 5)] == [
        "CFlow", "later-0", "later-1", "later-2",
    ]  # fmt: skip
    rows = table(book)
    assert [row["run"] for row in rows] == ["one", "later-0", "later-1", "later-2"]
    assert [row["model.new_option_2"] for row in rows] == [None, None, None, 2]
    assert read_workbook()[0]["verdict"] == "ask Olga"


def test_a_person_may_sort_rows_and_hide_columns():
    for name in ("a", "b", "c"):
        update_workbook(finished(name))
    book = open_book()
    sheet = book["runs"]
    rows = [[cell.value for cell in row] for row in sheet.iter_rows(min_row=2)]
    for number, values in enumerate(reversed(rows), 2):
        for column, value in enumerate(values, 1):
            sheet.cell(number, column).value = value
    sheet.column_dimensions["E"].hidden = True
    sheet.row_dimensions[3].hidden = True  # as a filter leaves it
    book.save(paths.workbook())
    update_workbook(finished("d"))
    assert [row["run"] for row in table()] == ["c", "b", "a", "d"]
    sheet = open_book()["runs"]
    assert sheet.column_dimensions["E"].hidden
    assert not sheet.row_dimensions[3].hidden


def test_a_row_whose_record_is_gone_stays_and_says_so_until_pruned(capsys: pytest.CaptureFixture[str]):
    kept, lost = finished("kept"), finished("lost")
    update_workbook(kept)
    shutil.rmtree(lost.folder)
    assert main(["compare"]) == 0
    assert {row["run"]: row["state"] for row in table()} == {"kept": "finished", "lost": "record not found"}
    assert main(["compare", "--prune"]) == 0
    assert "Removed: 1 rows" in capsys.readouterr().out
    assert [row["run"] for row in table()] == ["kept"]
    assert "lost" not in read_cells(open_book()["comparison"]).values()


def test_pruning_keeps_a_persons_column_beside_its_row():
    for name in ("a", "b", "c"):
        update_workbook(finished(name))
    book = open_book()
    sheet = book["runs"]
    right = sheet.max_column + 1
    sheet.cell(1, right, "verdict")
    for row in range(2, 5):
        sheet.cell(row, right, f"=F{row}")
    book.save(paths.workbook())
    shutil.rmtree(Run.open("results/Padim/coins/b").folder)
    update_workbook(prune=True)
    rows = table()
    assert [(row["run"], row["verdict"]) for row in rows] == [("a", "=F2"), ("c", "=F3")]


def test_a_sheet_of_a_person_that_has_our_name_is_left_alone():
    book = openpyxl.Workbook()
    book.active.title = "runs"
    book.active["A1"] = "marathon"
    book.create_sheet("comparison")["A1"] = "apples and pears"
    book.save(paths.workbook())
    for name in ("a", "b"):
        update_workbook(finished(name))
    book = open_book()
    assert book["runs"]["A1"].value == "marathon"
    assert read_cells(book["comparison"]) == {(1, 1): "apples and pears"}
    assert book["comparison (DefectLab)"]["A1"].value == "PaDiM"
    assert [row["run"] for row in read_workbook()] == ["a", "b"]


def test_an_unreadable_workbook_is_set_aside_not_overwritten():
    paths.workbook().write_bytes(b"not a zip")
    assert update_workbook(finished("a")).written
    (aside,) = paths.workbook().parent.glob("models_comparing_unreadable_*.xlsx")
    assert aside.read_bytes() == b"not a zip"
    assert [row["run"] for row in table()] == ["a"]


def test_a_workbook_damaged_anywhere_is_said_to_be():
    update_workbook(finished("a"))
    whole = paths.workbook().read_bytes()
    refused = 0
    for place in range(60, len(whole), len(whole) // 25):  # in what is compressed, in names, in the directory
        broken = bytearray(whole)
        broken[place] ^= 0x55
        paths.workbook().write_bytes(broken)
        try:
            read_workbook()
        except InputError:  # anything else is a crash
            refused += 1
    assert refused > 10


def test_a_workbook_whose_sheet_is_damaged_is_set_aside():
    update_workbook(finished("a"))
    whole = paths.workbook().read_bytes()
    start = whole.index(b"xl/worksheets/sheet1.xml") + 40
    paths.workbook().write_bytes(whole[:start] + b"\xff" * 20 + whole[start + 20 :])
    assert update_workbook().written
    assert [row["run"] for row in table()] == ["a"]
    assert len(list(paths.workbook().parent.glob("models_comparing_unreadable_*.xlsx"))) == 1


def test_an_empty_file_is_a_workbook_to_begin():
    paths.workbook().touch()
    assert read_workbook() == []
    update_workbook(finished("a"))
    assert [row["run"] for row in table()] == ["a"]
    assert len(list(paths.workbook().parent.glob("*.xlsx"))) == 1


def test_what_cannot_be_carried_over_is_kept_in_a_copy():
    update_workbook(finished("a"))
    book = open_book()
    book.create_sheet("mine")["A1"] = 1
    book.save(paths.workbook())
    with zipfile.ZipFile(paths.workbook(), "a") as archive:  # as a text box looks in the file
        archive.writestr("xl/drawings/drawing9.xml", "<xdr:wsDr><xdr:sp macro=''></xdr:sp></xdr:wsDr>")
    update_workbook(finished("b"))
    (copy,) = paths.workbook().parent.glob("models_comparing_before_*.xlsx")
    assert "mine" in openpyxl.load_workbook(copy).sheetnames
    update_workbook(finished("c"))
    assert len(list(paths.workbook().parent.glob("models_comparing_before_*.xlsx"))) == 1


def test_a_workbook_that_cannot_be_replaced_gets_its_rows_with_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    elsewhere = finished("elsewhere", root=tmp_path / "other results")
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.name == "models_comparing.xlsx":
            raise PermissionError(13, "open in another program")
        return replace(self, target)

    with monkeypatch.context() as patch:  # what Windows says of a file that Excel has open
        patch.setattr(Path, "replace", refuse)
        assert not update_workbook(elsewhere).written
    assert "come in with the next write" in caplog.text
    assert not paths.workbook().exists()
    update_workbook(finished("here"))
    assert {row["run"] for row in table()} == {"elsewhere", "here"}
    update_workbook()
    assert {row["state"] for row in table()} == {"finished"}


def test_the_workbook_may_be_a_link_and_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "share").mkdir()
    (tmp_path / "link.xlsx").symlink_to(tmp_path / "share/team.xlsx")
    monkeypatch.setenv("DEFECTLAB_WORKBOOK", "link.xlsx")
    update_workbook(finished("a"))
    assert (tmp_path / "link.xlsx").is_symlink()
    assert [row["run"] for row in table(open_book(tmp_path / "share/team.xlsx"))] == ["a"]


def test_a_metric_without_a_value_any_more_leaves_no_stale_cell():
    run = finished("a", metrics={"image_precision": 0.9})
    update_workbook(run)
    metrics = run.record.metrics | {"image_precision": None}
    run.update(metrics=metrics, metric_reasons={"image_precision": "nothing is above the threshold"})
    update_workbook(run)
    assert table()[0].get("image_precision") is None
    run.update(metrics=metrics | {"image_precision": 0.8}, metric_reasons={})
    update_workbook(run)
    assert "nothing is above" not in str(read_cells(open_book()["runs"]).values())


def put(sheet: str, cell: str, value: Any):
    return lambda book: book[sheet].__setitem__(cell, value)


def test_a_persons_columns_and_typing_never_stop_a_write():
    for name in ("a", "b"):
        update_workbook(finished(name))

    def change(book):
        sheet = book["runs"]
        right = sheet.max_column
        for number, header in enumerate(("image_notes", "pixel_gap", "model note"), 1):
            sheet.cell(1, right + number, header)
            sheet.cell(2, right + number, "text")
        metric = next(cell.column for cell in sheet[1] if cell.value == "image_AUROC")
        sheet.cell(3, metric, "n/a")
        sheet.merge_cells(start_row=2, end_row=3, start_column=3, end_column=3)

    edit(change)
    shutil.rmtree(Run.open("results/Padim/coins/b").folder)
    outcome = update_workbook(finished("c"))
    assert [row["run"] for row in outcome.rows] == ["a", "b", "c"]
    row = table()[0]
    assert [row[header] for header in ("image_notes", "pixel_gap", "model note")] == ["text"] * 3
    assert table()[1]["image_AUROC"] == "n/a"
    assert best_table(outcome.rows)


def test_a_broken_record_costs_its_own_row_only(caplog: pytest.LogCaptureFixture):
    broken = finished("broken")
    record = json.loads((broken.folder / "run.json").read_text())
    del record["experiment"]
    (broken.folder / "run.json").write_text(json.dumps(record))
    update_workbook(finished("whole", metrics={"image_AUROC": 0.5}))
    assert [row["run"] for row in table()] == ["whole"]
    assert "run.json is damaged: experiment is missing" in caplog.text


def test_a_control_character_does_not_stop_a_write():
    update_workbook(finished("a", options={"layers": ["layer1"], "remark": "a\x07b"}))
    assert table()[0]["model.remark"] == "a\\x07b"


def test_formulas_that_refer_to_the_comparison_keep_their_cells():
    update_workbook(finished("one", "patchcore"))
    edit(lambda book: book.create_sheet("mine").__setitem__("A1", "=comparison!B2"))
    expected = open_book()["comparison"]["B2"].value
    update_workbook(finished("two", "padim"))
    comparison = open_book()["comparison"]
    assert comparison["B2"].value == expected
    assert {block.title for block in find_blocks(read_cells(comparison))} == {"PaDiM", "PatchCore"}


def test_a_persons_own_configurations_are_never_overwritten():
    update_workbook(finished("one", "patchcore"))

    def change(book):
        sheet = book["comparison"]
        sheet["C1"], sheet["C2"] = "two", 0.5
        for place, value in enumerate(("PatchCore", *BARE_METRICS), 10):
            sheet.cell(place, 1, value)
        for place, value in enumerate(("two", 0.11, 0.12, 0.13, 0.14), 10):
            sheet.cell(place, 2, value)

    edit(change)
    for _ in range(2):
        update_workbook(finished("two", "patchcore", metrics={"image_AUROC": 0.9}))
    sheet = open_book()["comparison"]
    assert (sheet["C1"].value, sheet["C2"].value) == ("two", 0.5)
    assert [sheet.cell(place, 2).value for place in range(10, 15)] == ["two", 0.11, 0.12, 0.13, 0.14]
    run_id = table()[1]["run_id"]
    assert (sheet["D1"].value, sheet["D2"].value) == (f"two {run_id[-6:]}", 0.9)
    assert sheet.max_column == 4
    shutil.rmtree(Run.open("results/Patchcore/coins/two").folder)
    update_workbook(prune=True)
    sheet = open_book()["comparison"]
    assert (sheet["C1"].value, sheet["D1"].value) == ("two", None)


def test_block_titles_follow_when_a_second_dataset_arrives_beside_a_persons_notes():
    update_workbook(finished("one"))
    edit(put("comparison", "A6", "note"))
    update_workbook(finished("two", dataset="bottle"))
    update_workbook(finished("three"))
    cells = read_cells(open_book()["comparison"])
    assert cells[1, 1] == "PaDiM (coins)"
    assert cells[6, 1] == "note"
    assert [cells[1, at] for at in (2, 3)] == ["one", "three"]
    assert [block.title for block in find_blocks(cells)] == ["PaDiM (coins)", "PaDiM (bottle)"]


def test_sheets_renamed_in_case_or_deleted_are_not_multiplied():
    update_workbook(finished("a"))

    def change(book):
        for name in ("runs", "comparison"):
            sheet = book[name]
            sheet.title = "other"  # openpyxl takes its own name for taken, in any case
            sheet.title = name.capitalize()

    edit(change)
    for name in ("b", "c"):
        update_workbook(finished(name))
    assert open_book().sheetnames == ["Comparison", "Runs", *GENERATED]
    edit(lambda book: book.remove(book["Runs"]))
    update_workbook(finished("d"))
    assert set(open_book().sheetnames) == {"Comparison", "runs", *GENERATED}
    assert {row["run"] for row in table()} == {"a", "b", "c", "d"}


def test_a_shared_workbook_keeps_a_colleagues_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEFECTLAB_WORKBOOK", str(tmp_path / "team.xlsx"))
    for who in ("olga", "ben"):
        (tmp_path / who).mkdir()
        monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path / who))
        update_workbook(finished(who))
    update_workbook(prune=True)
    rows = read_workbook()
    assert {row["run"]: row["state"] for row in rows} == {"olga": "recorded elsewhere", "ben": "finished"}
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path / "olga"))
    update_workbook()
    assert {row["run"]: row["state"] for row in read_workbook()} == {"olga": "finished", "ben": "recorded elsewhere"}


def test_colours_filters_and_tables_of_a_person_stay():
    for name in ("a", "b"):
        update_workbook(finished(name))

    def change(book):
        sheet = book["runs"]
        sheet["A2"].fill = PatternFill("solid", fgColor="FFFFFF00")
        sheet.auto_filter.add_filter_column(1, ["coins"])
        sheet.row_dimensions[3].hidden = True

    edit(change)
    update_workbook(finished("c", "cflow", options={"layers": ["layer1"], "another": 1}))
    sheet = open_book()["runs"]
    assert sheet["A2"].fill.fgColor.rgb == "FFFFFF00"
    assert sheet.auto_filter.filterColumn[0].colId == 1
    assert sheet.auto_filter.ref == sheet.dimensions
    assert sheet.row_dimensions[3].hidden

    def make_table(book):
        sheet = book["runs"]
        sheet.auto_filter.ref = None
        sheet.add_table(Table(displayName="all", ref=sheet.dimensions))

    edit(make_table)
    before = open_book()["runs"].tables["all"].ref
    update_workbook(finished("d", options={"layers": ["layer1"], "one_more": 1}))
    sheet = open_book()["runs"]
    assert sheet.tables["all"].ref == before
    assert sheet.auto_filter.ref is None


def test_pruning_leaves_a_gap_where_a_formula_refers_to_a_row():
    for name in ("a", "b", "c"):
        update_workbook(finished(name))
    edit(lambda book: book.create_sheet("mine").__setitem__("A1", "=runs!F4"))
    assert open_book()["runs"]["F4"].value == "c"
    shutil.rmtree(Run.open("results/Padim/coins/b").folder)
    update_workbook(prune=True)
    assert open_book()["runs"]["F4"].value == "c"
    assert [row["run"] for row in table()] == ["a", None, "c"]
    assert [row["run"] for row in read_workbook()] == ["a", "c"]


def test_what_a_killed_writer_had_taken_off_the_list_still_comes_in(tmp_path: Path):
    run = finished("elsewhere", root=tmp_path / "other results")
    (paths.workbook().parent / ".models_comparing.xlsx.pending.123-456").write_text(f"{run.folder}\n")
    update_workbook()
    assert [row["run"] for row in table()] == ["elsewhere"]
    assert not list(paths.workbook().parent.glob("*.pending*"))


def test_a_run_in_a_folder_with_a_line_break_comes_in(tmp_path: Path):
    (tmp_path / "two\nlines").mkdir()
    outcome = update_workbook(finished("elsewhere", root=tmp_path / "two\nlines/results"))
    assert [(row["run"], row["state"]) for row in outcome.rows] == [("elsewhere", "finished")]
    assert [row["run"] for row in table()] == ["elsewhere"]


def add_runs(home: str, who: int, count: int) -> None:
    os.environ["DEFECTLAB_HOME"] = home
    for number in range(count):
        update_workbook(finished(f"run {who} {number}"))


def write_at_once(home: Path, writers: int, runs: int) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_runs, args=(str(home), who, runs)) for who in range(writers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * writers


def test_many_writers_at_once_lose_no_row(own_project: Path):
    write_at_once(own_project, 3, 4)
    assert {row["run"] for row in table()} == {f"run-{who}-{number}" for who in range(3) for number in range(4)}


def kill_writers(home: Path, times: int) -> None:
    """Kill a writer at random moments; after each kill the workbook opens, and the next write makes it complete."""
    draw = random.Random(0)
    context = multiprocessing.get_context("fork")
    for number in range(times):
        writer = context.Process(target=add_runs, args=(str(home), number, 40))
        writer.start()
        time.sleep(draw.uniform(0.05, 0.6))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        if paths.workbook().exists():
            open_book()
        outcome = update_workbook()
        assert outcome.written
        records = [json.loads(file.read_text()) for file in home.glob("results/*/*/[!.]*/run.json")]
        done = {record["name"] for record in records if record["status"] == "finished"}
        assert {row["run"] for row in table()} == done
    assert not list(home.glob(".models_comparing.xlsx.*.part"))


def test_a_killed_writer_leaves_a_whole_workbook(own_project: Path):
    kill_writers(own_project, 5)


@pytest.mark.long
def test_ten_writers_add_twenty_runs_each(own_project: Path):
    write_at_once(own_project, 10, 20)
    assert len(table()) == 200
    assert len({row["run_id"] for row in table()}) == 200


@pytest.mark.long
def test_fifty_killed_writers(own_project: Path):
    kill_writers(own_project, 50)


def test_the_one_that_comes_along_has_the_columns_that_its_runs_are_compared_by():
    rows = [row for row in read_workbook(CHECKOUT / "models_comparing.xlsx") if row.get("data.root") == "data/coins"]
    assert {"PaDiM", "PatchCore", "CFlow"} <= {row["model"] for row in rows}
    assert all(row.get(column) for row in rows for column in (GRID, "parameters", "test_images"))
