"""The leaderboard as a spreadsheet program gets it: order, ties, colours, chart, folding and links."""

import shutil
from pathlib import Path

import openpyxl
import pytest
from helpers.models import small, trained
from helpers.runs import far_best_and_near, finished
from helpers.workbook import edit, open_book

from defectlab.results.run.run import Run
from defectlab.results.workbook import read_workbook, update_workbook
from defectlab.results.workbook.leaderboard_sheet import AT, TRIVIAL
from defectlab.utils import paths


def column(sheet, name: str) -> list:
    return [cell.value for cell in sheet[openpyxl.utils.get_column_letter(AT[name])]]


def test_the_leaderboard_shows_best_first_with_ties_trivial_values_and_links():
    runs = far_best_and_near()
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
    update_workbook(far_best_and_near()[0])
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
    assert rules["A4:H6"] == ["expression", "expression"]
    assert rules["J4:J6"] == ["colorScale"]
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


def test_scores_that_cannot_be_read_cost_the_tie_alone(caplog: pytest.LogCaptureFixture):
    runs = far_best_and_near()
    (runs[0].folder / "scores.csv").write_text("image_path,split,defect,label,score,pred_label\na,test,,0,x,0\n")
    assert update_workbook().written
    assert column(open_book()["leaderboard"], "verdict")[3:6] == ["best", "tied with the best", "not tested"]
    assert "its ties are not tested" in caplog.text


def test_scores_are_read_once_for_each_run(monkeypatch: pytest.MonkeyPatch):
    far_best_and_near()
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
    run = finished("a", dataset="my coins")
    (run.folder / "report.html").write_text("")
    update_workbook()
    assert (
        open_book()["leaderboard"].cell(4, AT["report"]).hyperlink.target == "../results/Padim/my%20coins/a/report.html"
    )


def test_a_row_whose_record_is_gone_stays_on_the_board_untested():
    runs = far_best_and_near()
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
    assert "p (corrected)" not in names
    row = {name: sheet.cell(top + 3, at).value for name, at in names.items() if name}
    assert (row["rank"], row["run"]) == (1, "one")
    assert (row["image_AUROC"], row["pixel_AUROC"]) == pytest.approx((0.75, 0.375))
    assert row["note"] == "2 datasets: coins, bottle; image AUROC lowest on coins (0.600)"


def test_one_model_for_two_categories_stands_beside_the_models_of_each(both: Run, categories: Path):
    shutil.copytree(both.folder, paths.results_dir() / "Patchcore/bolt+nut" / both.folder.name)
    for name in ("bolt", "nut"):
        trained(small("patchcore"), categories / name, paths.results_dir())
    rows = update_workbook().rows
    assert sorted(row["dataset"] for row in rows) == ["bolt", "bolt+nut", "nut"]  # a row for each run
    cells = open_book()["leaderboard"].iter_rows(values_only=True)
    lines = [[cell for cell in row if cell is not None] for row in cells]
    titles = [line[0] for line in lines if line and str(line[0]).endswith("configurations")]
    assert sorted(titles) == ["bolt: 2 configurations", "nut: 2 configurations"]
    marked = [line for line in lines if any("one model for 2 categories: bolt, nut" in str(cell) for cell in line)]
    assert len(marked) == 2  # once in each ranking
    means = [line for line in lines if any("2 datasets: " in str(cell) for cell in line)]
    assert len(means) == 2  # the one model, and the model of each category alone
