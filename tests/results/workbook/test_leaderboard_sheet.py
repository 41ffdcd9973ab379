"""The generated sheets as a spreadsheet program gets them: layout, colours, chart, folding, links, a person's edits."""

import shutil
from pathlib import Path

import openpyxl
import pytest
from helpers.runs import finished, measured
from openpyxl.styles import PatternFill

from defectlab.results.run.run import Run
from defectlab.results.workbook import imported_rows, read_workbook, update_workbook
from defectlab.results.workbook.cells import read_cells
from defectlab.results.workbook.leaderboard_sheet import AT, TRIVIAL
from defectlab.results.workbook_row import best_rows, interval_columns, is_ours, ranked_within, row_of
from defectlab.utils import paths


def open_book():
    return openpyxl.load_workbook(paths.workbook())


def edit(change) -> None:
    book = open_book()
    change(book)
    book.save(paths.workbook())


def column(sheet, name: str) -> list:
    return [cell.value for cell in sheet[openpyxl.utils.get_column_letter(AT[name])]]


def three() -> list[Run]:
    runs = [measured("far", 3.0, 2), measured("best", 0.5, 0), measured("near", 0.55, 1)]
    for run in runs:
        run.update(trivial={"image_F1Score": 0.75, "image_AUPR": 0.6})
    return runs


def test_the_leaderboard_shows_best_first_with_ties_trivial_values_and_links():
    runs = three()
    runs[1].checkpoint.parent.mkdir(parents=True)
    runs[1].checkpoint.write_bytes(b"x" * 2_500_000)
    (runs[1].folder / "report.html").write_text("report")
    update_workbook()
    sheet = open_book()["leaderboard"]
    assert sheet["A1"].value == "coins: 3 configurations"
    assert "test: 3 good and 2 anomalous" in sheet["A2"].value
    assert column(sheet, "run")[2:7] == ["run", "best", "near", "far", TRIVIAL]
    assert column(sheet, "verdict")[3:6] == ["best", "tied with the best", "worse"]
    assert column(sheet, "rank")[3:6] == [1, 2, 3]
    assert column(sheet, "image_F1Score")[6] == 0.75
    assert column(sheet, "image_AUPR")[6] == 0.6
    assert column(sheet, "checkpoint_MB")[3:6] == [2.5, None, None]
    assert column(sheet, "fit_seconds")[3] == 12.5
    links = [sheet.cell(4, AT[name]).hyperlink for name in ("checkpoint", "report")]
    assert [link.target for link in links] == [
        "results/Padim/coins/best/weights/lightning/model.ckpt", "results/Padim/coins/best/report.html",
    ]  # fmt: skip
    assert sheet.cell(5, AT["report"]).hyperlink is None


def test_the_chart_draws_each_configuration_with_its_interval_and_rules_colour_the_block():
    update_workbook(three()[0])
    sheet = open_book()["leaderboard"]
    (chart,) = sheet._charts
    (series,) = chart.series
    first, last = series.val.numRef.f.split("!")[1].replace("$", "").split(":")
    drawn = [cell[0].value for cell in sheet[f"{first}:{last}"]]
    assert drawn == column(sheet, "image_AUROC")[3:6]
    up, down = (source.numRef.f.split("!")[1] for source in (series.errBars.plus, series.errBars.minus))
    for value, plus, minus, low, high in zip(
        drawn,
        (cell[0].value for cell in sheet[up]),
        (cell[0].value for cell in sheet[down]),
        column(sheet, "95% low")[3:6],
        column(sheet, "95% high")[3:6],
        strict=True,
    ):
        assert (minus, plus) == pytest.approx((value - (low or value), (high or value) - value))
    rules = {str(found.sqref): [rule.type for rule in found.rules] for found in sheet.conditional_formatting}
    assert rules["A4:F6"] == ["expression", "expression"]
    assert rules["H4:H6"] == ["colorScale"]
    assert any("cellIs" in types for types in rules.values())


def test_seeds_are_folded_under_their_row():
    for seed, value in ((0, 0.8), (1, 0.9)):
        finished("one", seed=seed, metrics={"image_AUROC": value})
    update_workbook(finished("two", metrics={"image_AUROC": 0.1}))
    sheet = open_book()["leaderboard"]
    assert column(sheet, "run")[3:7] == ["one (2 seeds)", "one", "one_seed-1", "two"]
    assert column(sheet, "image_AUROC")[3] == pytest.approx(0.85)
    assert column(sheet, "sd of seeds")[3] == pytest.approx(0.05 * 2**0.5)
    assert column(sheet, "seed")[3:7] == ["0, 1", "0", "1", "42"]
    levels = [sheet.row_dimensions[row].outlineLevel for row in range(4, 8)]
    assert levels == [0, 1, 1, 0]
    assert all(sheet.row_dimensions[row].hidden for row in (5, 6))
    assert not sheet.sheet_properties.outlinePr.summaryBelow


def test_kinds_of_defect_have_columns_with_counts():
    run = finished("one")
    run.update(per_defect=[
        {"defect": "good", "label": 0, "count": 20, "flagged": 2, "image_AUROC": None},
        {"defect": "hole", "label": 1, "count": 9, "flagged": 4, "image_AUROC": 0.25, "pixel_AUROC": 0.75},
        {"defect": "scratch", "label": 1, "count": 8, "flagged": None, "image_AUROC": 0.5, "pixel_AUROC": None},
    ])  # fmt: skip
    finished("without", metrics={"image_AUROC": 0.0})
    update_workbook()
    rows = [list(row) for row in open_book()["per defect"].iter_rows(values_only=True)]
    assert rows[0][0] == "coins"
    assert rows[1][0].endswith("; 1 runs without a record here are left out")
    assert rows[2][6:] == ["good (20 images)", "hole (9 images)", None, None, "scratch (8 images)", None]
    assert rows[3][5:] == [
        "weakest kind",
        "false alarms",
        "image AUROC",
        "pixel AUROC",
        "caught",
        "image AUROC",
        "caught",
    ]
    assert rows[4][5:] == ["hole", "2 of 20", 0.25, 0.75, "4 of 9", 0.5, None]


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


def test_oracle_values_have_columns_of_their_own_also_in_an_old_workbook():
    update_workbook(finished("one", metrics={"image_F1Max": 0.9, "pixel_F1Max": 0.8}))

    def make_old(book):
        sheet = book["runs"]
        for cell in sheet[1]:
            if str(cell.value).startswith("oracle "):
                cell.value = cell.value.removeprefix("oracle ")
        sheet.cell(1, sheet.max_column + 1, "verdict")
        sheet.cell(2, sheet.max_column, "ask Olga")

    edit(make_old)
    update_workbook(finished("two", metrics={"image_F1Max": 0.7}))
    headers = [cell.value for cell in open_book()["runs"][1]]
    assert headers.count("oracle image_F1Max") == headers.count("oracle pixel_F1Max") == 1
    assert not {"image_F1Max", "pixel_F1Max"} & set(headers)
    rows = {row["run"]: row for row in read_workbook()}
    assert [rows[name]["oracle image_F1Max"] for name in ("one", "two")] == [0.9, 0.7]
    assert rows["one"]["verdict"] == "ask Olga"


def test_intervals_on_record_have_their_columns():
    run = finished("one")
    interval = {"low": 0.4, "high": 0.6, "method": "", "confidence": 0.95}
    run.update(intervals={"image_AUROC": interval, "pixel_AUPRO": interval | {"low": 0.2}, "image_F1Score": None})
    update_workbook()
    (row,) = read_workbook()
    assert [row[name] for name in interval_columns("image_AUROC")] == [0.4, 0.6]
    assert [row[name] for name in interval_columns("pixel_AUPRO")] == [0.2, 0.6]
    assert "image_F1Score 95% low" not in row
    assert is_ours("pixel_AUROC 95% high")
    assert not is_ours("my 95% high")


def test_a_sheet_that_a_person_changed_stays_as_it_is_and_a_new_one_is_made(caplog: pytest.LogCaptureFixture):
    three()
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


def test_new_columns_still_come_in_their_order_beside_a_chart_of_our_own():
    update_workbook(finished("one"))
    update_workbook(finished("two", options={"layers": ["layer1"], "a_new_option": 1}))
    headers = [cell.value for cell in open_book()["runs"][1]]
    assert headers.index("model.a_new_option") < headers.index("seed")


def test_scores_that_cannot_be_read_cost_the_tie_alone(caplog: pytest.LogCaptureFixture):
    runs = three()
    (runs[0].folder / "scores.csv").write_text("image_path,split,defect,label,score,pred_label\na,test,,0,x,0\n")
    assert update_workbook().written
    assert column(open_book()["leaderboard"], "verdict")[3:6] == ["best", "tied with the best", "not tested"]
    assert "its ties are not tested" in caplog.text


def test_scores_are_read_once_for_each_run(monkeypatch: pytest.MonkeyPatch):
    three()
    opened: list[Path] = []
    plain = Path.open

    def watched(self: Path, *args, **kwargs):
        opened.extend([self] if self.name == "scores.csv" else [])
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", watched)
    update_workbook()
    assert len(opened) == len(set(opened)) == 3


def test_a_workbook_elsewhere_links_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "team").mkdir()
    monkeypatch.setenv("DEFECTLAB_WORKBOOK", "team/all runs.xlsx")
    run = finished("a b")
    (run.folder / "report.html").write_text("")
    update_workbook()
    assert (
        open_book()["leaderboard"].cell(4, AT["report"]).hyperlink.target == "../results/Padim/coins/a%20b/report.html"
    )


def test_our_own_sheets_are_never_taken_for_blocks_to_import():
    update_workbook(finished("one"))
    edit(lambda book: book.remove(book["comparison"]))
    from defectlab.utils.errors import InputError

    with pytest.raises(InputError, match=r"sheets looked at: none"):
        imported_rows(paths.workbook())


def test_a_row_whose_record_is_gone_stays_on_the_board_untested():
    runs = three()
    update_workbook()
    shutil.rmtree(runs[2].folder)
    update_workbook()
    sheet = open_book()["leaderboard"]
    assert column(sheet, "verdict")[3:6] == ["best", "not tested", "worse"]
    assert column(sheet, "note")[4] == "record not found"


def test_means_over_datasets_stand_below_the_blocks():
    for dataset, value in (("coins", 0.6), ("bottle", 0.9)):
        last = finished("one", dataset=dataset, metrics={"image_AUROC": value, "pixel_AUROC": value / 2})
    update_workbook(last)
    sheet = open_book()["leaderboard"]
    (top,) = [cell.row for cell in sheet["A"] if cell.value == "mean over datasets"]
    names = {cell.value: cell.column for cell in sheet[top + 2]}
    assert "p (Holm)" not in names
    row = {name: sheet.cell(top + 3, at).value for name, at in names.items() if name}
    assert (row["rank"], row["run"]) == (1, "one")
    assert (row["image_AUROC"], row["pixel_AUROC"]) == pytest.approx((0.75, 0.375))
    assert row["note"] == "2 datasets: coins, bottle; image AUROC lowest on coins (0.600)"


def test_a_run_says_how_many_parameters_it_has_and_on_which_grid_its_pixels_were_measured():
    run = finished("one", parameters=2_353_000, evaluation={"pixel_size": "input", "grid": [256, 320]})
    row = row_of(run)
    assert (row["parameters"], row["pixel_grid"]) == (2_353_000, "256 x 320")
    assert is_ours("parameters")
    other = row_of(finished("two", evaluation={"pixel_size": "input", "grid": [128, 128]})) | {"pixel_AUROC": 0.1}
    best = best_rows([row, other])
    assert best[ranked_within(other, "pixel_AUROC")] == 0.1, "another grid: not ranked together"
    assert best[ranked_within(other, "image_AUROC")] == max(row["image_AUROC"], other["image_AUROC"])


def test_long_labels_of_the_comparison_wrap_into_rows_high_enough_and_its_titles_are_whole():
    finished("a_label_of_a_configuration_that_is_longer_than_a_column_is_wide_seed-43", dataset="a longish dataset")
    update_workbook(finished("short"))
    sheet = open_book()["comparison"]
    heads = {sheet.cell(row, 1).value: row for row in range(1, sheet.max_row + 1) if sheet.cell(row, 2).value}
    long, short = (next(row for title, row in heads.items() if name in title) for name in ("longish", "coins"))
    assert sheet.cell(long, 2).alignment.wrap_text
    assert sheet.row_dimensions[long].height >= 3 * 15
    assert sheet.row_dimensions[short].height in (None, 15)
    assert sheet.column_dimensions["A"].width > len("PaDiM (a longish dataset)")
