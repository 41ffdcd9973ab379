"""The sheet with a row a run: its columns."""

from helpers.runs import finished
from helpers.workbook import open_book

from defectlab.results.workbook import read_workbook, update_workbook
from defectlab.results.workbook_row import interval_columns, is_ours


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


def test_new_columns_still_come_in_their_order_beside_a_chart_of_our_own():
    update_workbook(finished("one"))
    update_workbook(finished("two", options={"layers": ["layer1"], "a_new_option": 1}))
    headers = [cell.value for cell in open_book()["runs"][1]]
    assert headers.index("model.a_new_option") < headers.index("seed")
