"""The sheet of curves against the number of good images."""

from helpers.runs import finished, with_k_shots
from helpers.workbook import open_book

from defectlab.results.workbook import read_workbook, update_workbook
from defectlab.results.workbook.generated_sheets import GENERATED, K_SHOTS

MEANS = {2: (0.8, 0.9), 8: (0.951, 0.95), 100: (0.95, 0.951)}


def test_a_workbook_without_such_runs_has_no_such_sheet():
    update_workbook(finished("a"))
    assert K_SHOTS not in open_book().sheetnames


def test_each_number_of_images_is_a_row_and_each_metric_a_chart():
    with_k_shots(finished("a"), MEANS)
    with_k_shots(finished("b", "patchcore"), {4: (0.7, 0.8)})
    with_k_shots(finished("c", dataset="bottle"), MEANS)
    finished("without")
    update_workbook()
    book = open_book()
    assert book.sheetnames == ["comparison", "runs", *GENERATED, K_SHOTS]
    sheet = book[K_SHOTS]
    lines = [[cell.value for cell in row] for row in sheet.iter_rows()]
    assert [line[0] for line in lines if line[0] and "how many" in str(line[0])] == [
        "coins: how many good images",
        "bottle: how many good images",
    ]
    header = lines[2]
    rows = [dict(zip(header, line, strict=True)) for line in lines if line[4] in (2, 4, 8, 100)]
    of_a = [row for row in rows if row["run"] == "a"]
    assert [(row["metric"], row["images"], row["draws"]) for row in of_a] == [
        (metric, k, draws) for metric in ("image_AUROC", "pixel_AUROC") for k, draws in ((2, 4), (8, 4), (100, 1))
    ]
    first, _, last = of_a[:3]
    assert abs(first["mean"] - 0.7995) < 1e-9
    assert abs(first["mean"] - first["down to"] - first["95% low"]) < 1e-9
    assert (last["95% low"], last["down to"], last["gain to the most"]) == (None, 0, 0)
    assert first["more images"].startswith("More than 8 good images no longer help")
    assert [len(chart.series) for chart in sheet._charts] == [2, 2, 1, 1]
    bars = {series.errBars.minus.numRef.f for series in sheet._charts[0].series}
    place = [row["run"] for row in rows].index("a") + 4
    assert f"'k-shots'!$J${place}:$J${place + 2}" in bars
    assert "data.k_shots" not in read_workbook()[0]


def test_the_sheet_is_written_again_and_goes_with_its_runs():
    run = with_k_shots(finished("a"), MEANS)
    update_workbook()
    run.update(k_shots=None)
    update_workbook()
    assert K_SHOTS not in open_book().sheetnames
    with_k_shots(run, MEANS)
    update_workbook()
    update_workbook()
    assert open_book().sheetnames.count(K_SHOTS) == 1


def test_curves_of_ones_have_an_axis_with_a_length():
    with_k_shots(finished("a"), {2: (1.0, 1.0), 100: (1.0, 1.0)}, draws=1)
    update_workbook()
    axes = [chart.y_axis.scaling for chart in open_book()[K_SHOTS]._charts]
    assert [(axis.min, axis.max) for axis in axes] == [(0.95, 1.0)] * 2
