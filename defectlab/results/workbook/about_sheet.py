"""The sheet `about`, which explains the workbook's sheets, columns and terms, and each dataset's protocol."""

from collections.abc import Mapping, Sequence

from openpyxl.styles import Alignment
from openpyxl.worksheet.worksheet import Worksheet

from defectlab.results.comparison.ranking import BEST, TIED, UNTESTED, WORSE, Ranking
from defectlab.results.workbook.cells import HEADER, put, set_pages
from defectlab.results.workbook.leaderboard_sheet import BOLD, QUIET, TITLE

SHEETS = {
    "comparison": "The four bare metrics of every run, in blocks as people keep them by hand.",
    "runs": "Every run with every setting, a row each; sort and filter it. Columns and notes that you add stay.",
    "leaderboard": "Who is best on each dataset, split and pixel grid, how sure that is, and what it costs. A row with "
    "several seeds opens into them (the + beside the row numbers). Last, what ran on several datasets: the mean over "
    "these.",
    "per defect": "Where each run fails: AUROC of each kind of defect against all good test images, how many were "
    "caught at the run's threshold, and how many good images were flagged.",
}
WORDS = {
    BEST: "The highest image AUROC of its block (of equals the highest image AUPR, then pixel AUPRO). It was picked on "
    "the test images, which favours it.",
    TIED: "Not told apart from the best on the same test images, p at least 0.05: by DeLong's paired test for two "
    "configurations; of more, all are compared with each other, so that any of several equal ones is called worse 5 "
    "times in 100. Tied is not equal: with more images it may become worse.",
    WORSE: "Told apart by that test from the best or one tied with it (p below 0.05).",
    UNTESTED: "The image scores of this row or of the best are not at hand, or of other images: no test could be made.",
    "oracle": "Chosen on the test images themselves, so better than what one would get in use: F1Max is the F1 of the "
    "best possible threshold. For a look at what a better threshold could bring, never for ranking.",
    "interval (95% low, 95% high)": "Where the metric would lie on other images of the same kinds, 95 times in 100. "
    "DeLong on the logit scale for the AUROC; where that has no value (perfect separation) Newcombe's method 5. In the "
    "leaderboard a row of several seeds has that of the mean over its seeds.",
    "sd of seeds, seeds 95% low, seeds 95% high": "Standard deviation (n - 1) and t interval of the image AUROC over "
    "the seeds, on the same test images: how much luck of the seed there is. It says nothing of other images.",
    "trivial detector": "One that calls every image anomalous: AUROC 0.5, F1 2p / (1 + p) and AUPR p for a share p of "
    "anomalous test images. F1 and AUPR in red are no better than that.",
    "split": "First digits of the manifest's hash: which image lies in which split. Rows of different splits or pixel "
    "grids are never ranked against each other.",
}
METRICS = {
    "image_AUROC": "Share of pairs of an anomalous and a good test image in which the anomalous one scores higher.",
    "image_F1Score": "F1 of the image labels at the run's own threshold (threshold_rule, thresholds_from).",
    "pixel_AUROC": "As image_AUROC, over all pixels of all test images. High even for poor maps: most pixels are good.",
    "pixel_F1Score": "F1 over all pixels at the run's own pixel threshold.",
    "AUPR": "Area under precision and recall (average precision).",
    "AUPRO": "Area under the per-region overlap up to a false-positive rate of 0.3, divided by 0.3.",
    "FPR_at_95TPR": "Share of good ones flagged at the threshold that catches 95 % of the anomalous; lower is better.",
    "TPR, TNR": "Share of the anomalous that are flagged, and of the good that are not, at the threshold.",
    "accuracy, precision, recall": "At the run's own threshold.",
    "oracle image_F1Max, oracle pixel_F1Max": "F1 at the best threshold of all for the test images: see oracle.",
}
COLUMNS = {
    "image_threshold, pixel_threshold": "Raw: what lies above is anomalous. Not comparable between runs.",
    "threshold_rule": "How it was chosen; image and pixel are named apart where they differ.",
    "thresholds_from": "Of which split's images it was chosen; (oracle) where these were the test images.",
    "fit_seconds, validation_seconds, test_seconds": "Wall clock of each stage on `device`, reading images included.",
    "images/s": "Test images over test_seconds: reading, scoring and metrics' bookkeeping together.",
    "checkpoint_MB": "Size of the checkpoint file, in millions of bytes.",
    "parameters": "Trainable and fixed numbers of the model, its backbone included, before it is fitted.",
    "test images": "How many good and anomalous ones the row was tested on: few of them can tell little apart.",
    "rank, verdict": "Place by image AUROC, and whether it can be told from the best: see tied.",
    "run, seed, model, backbone, weights": "Its name on record and what it was made of; several seeds of one are one "
    "row. Random weights are drawn by the seed.",
    "note": "What one must know before believing the row.",
    "p (corrected)": "p-value of an image AUROC not below that of any other, corrected for all comparisons.",
    "protocol": "Where validation images and good test images came from.",
    "not_available": "Metrics without a value, and why.",
    "groups": "Groups of datasets that a sweep has named and this dataset is of.",
    "chosen": "By which metric, and on which images, a sweep chose this run as its best.",
    "pixel_grid": "Height and width on which the pixel metrics are computed; only those of one size are marked as best "
    "among each other. evaluation.pixel_size: original or [h, w] gives models of other input sizes one grid.",
    "model.*, data.*, backbone.*, trainer.*, evaluation.*": "The run's settings, an option a column.",
    "checkpoint, record, report": "Where these lie, from the project's root; in the leaderboard links that open them.",
    "state": "finished; partial: not all images were scored, and it is not ranked; imported from a hand-kept workbook; "
    "or its record is not found or lies elsewhere.",
    "repeat_key": "Equal for runs that differ in nothing but their seed.",
    "manifest, weights_sha256, run_id, project": "Hashes that say exactly which split, weights, experiment and place.",
}  # fmt: skip


_WIDTHS = 46, 110  # characters


def write_about(sheet: Worksheet, rankings: Sequence[Ranking]) -> None:
    """Write the explanations in sections, with names in column A and meanings in column B."""
    protocols = {
        f"{ranking.group[0] or 'no dataset'}, {ranking.group[1][:6]}, pixels {ranking.group[2]}": ranking.protocol
        for ranking in rankings
    }
    put(sheet, 1, 1, "What this workbook says, and how far it can be believed").font = TITLE
    how = (
        "Made from the run records by DefectLab; `defectlab compare` makes it again. What you delete comes back, what "
        "you hide stays hidden, a sheet that you rename or change is yours and stays."
    )
    put(sheet, 2, 1, how).font = QUIET
    place = 4
    sections = {"Sheets": SHEETS, "Words": WORDS, "Metrics": METRICS, "Other columns": COLUMNS, "Protocols": protocols}
    for title, meanings in sections.items():
        place = _write_section(sheet, title, meanings, place) + 1
    sheet.column_dimensions["A"].width, sheet.column_dimensions["B"].width = _WIDTHS
    set_pages(sheet, 1)


def _write_section(sheet: Worksheet, title: str, meanings: Mapping[str, str], place: int) -> int:
    for at, value in enumerate((title, "what it means"), 1):
        cell = put(sheet, place, at, value)
        cell.font, cell.fill = BOLD, HEADER
    for name, meaning in meanings.items():
        place += 1
        for at, value in enumerate((name, meaning), 1):
            put(sheet, place, at, value).alignment = Alignment(wrap_text=True, vertical="top")
        # set explicitly, since not every program fits row heights to wrapped text on opening
        lines = max(-(-len(name) // (_WIDTHS[0] - 6)), -(-len(meaning) // (_WIDTHS[1] + 5)))
        sheet.row_dimensions[place].height = 15.0 * lines
    return place + 1
