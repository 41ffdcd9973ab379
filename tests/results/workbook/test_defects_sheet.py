"""The sheet of kinds of defect."""

from helpers.runs import finished
from helpers.workbook import open_book

from defectlab.results.workbook import update_workbook


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
