"""A run as a row of the workbook."""

from helpers.runs import finished, set_protocol

from defectlab.results.workbook_row import best_rows, is_ours, ranked_within, row_of


def test_a_run_says_how_many_parameters_it_has_and_on_which_grid_its_pixels_were_measured():
    run = finished("one", parameters=2_353_000, evaluation={"pixel_size": "input", "grid": [256, 320]})
    row = row_of(run)
    assert (row["parameters"], row["pixel_grid"]) == (2_353_000, "256 x 320")
    assert is_ours("parameters")
    other = row_of(finished("two", evaluation={"pixel_size": "input", "grid": [128, 128]})) | {"pixel_AUROC": 0.1}
    best = best_rows([row, other])
    assert best[ranked_within(other, "pixel_AUROC")] == 0.1, "another grid: not ranked together"
    assert best[ranked_within(other, "image_AUROC")] == max(row["image_AUROC"], other["image_AUROC"])


def test_the_protocol_says_what_counts_as_defect_where_that_is_not_all_but_black():
    run = finished("one")
    plain = row_of(run)["protocol"]
    set_protocol(run, mask_reading={"threshold": 0, "inverted": False, "not_zero": True})
    assert row_of(run)["protocol"] == plain
    set_protocol(run, mask_reading={"threshold": 127.0, "inverted": False, "not_zero": False})
    assert row_of(run)["protocol"] == f"{plain}; of masks, what is above 127 counts as defect"
