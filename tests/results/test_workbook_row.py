"""A run as a row of the workbook."""

from helpers.runs import finished

from defectlab.results.workbook_row import best_rows, is_ours, ranked_within, row_of


def test_a_run_says_how_many_parameters_it_has_and_on_which_grid_its_pixels_were_measured():
    run = finished("one", parameters=2_353_000, evaluation={"pixel_size": "input", "grid": [256, 320]})
    row = row_of(run)
    assert (row["parameters"], row["pixel_grid"]) == (2_353_000, "256 x 320, masks by the nearest pixel")
    assert is_ours("parameters")
    other = row_of(finished("two", evaluation={"pixel_size": "input", "grid": [128, 128]})) | {"pixel_AUROC": 0.1}
    best = best_rows([row, other])
    assert best[ranked_within(other, "pixel_AUROC")] == 0.1, "another grid: not ranked together"
    assert best[ranked_within(other, "image_AUROC")] == max(row["image_AUROC"], other["image_AUROC"])
