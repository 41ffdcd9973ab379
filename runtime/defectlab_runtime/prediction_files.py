"""Files of predictions: scores.csv, heat maps on one scale, masks."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from defectlab_runtime import names
from defectlab_runtime.errors import DataError, InputError
from defectlab_runtime.files import write_csv
from defectlab_runtime.image_sources import common_folder
from defectlab_runtime.images import as_uint8, read_image
from defectlab_runtime.normalization import VIEW_THRESHOLDS, percent_window
from defectlab_runtime.overlays import contour, overlay, save_image
from defectlab_runtime.prediction import Prediction
from defectlab_runtime.scores import ScoreRow, score_cells
from defectlab_runtime.scoring import ImageScorer

logger = logging.getLogger("defectlab.runtime")  # one logger, "defectlab", for runtime and toolkit

DIGITS = {"min_max": 4, "percent": 2}  # decimal places of the scores in scores.csv by view
MAX_LINES = 20  # files in a list


class PredictionFiles:
    """Writes the pictures of predictions one by one, and scores.csv at the end, under `output`.

    Pictures are named after the image's path below what all images share.

    Args:
        scorer: Made the predictions.
        output: The folder, which need not exist.
        files: All images, those without a score too, in the order of scores.csv.
        heatmaps: Whether `heatmaps/` is written, all on one scale: `ImageScorer.heat_range`, or in view percent from 50
            to 150 around the maps' threshold.
        masks: Whether `masks/` is written.
        view: Of the scores in scores.csv: raw, min_max (0.5 is the threshold, four digits) or percent (100, two).
            Rounding never moves a score across the threshold.
        shown: Returns a file's path as it stands in scores.csv and in messages.

    Raises:
        InputError: A view, or heat maps or masks, that the model cannot give.
    """

    def __init__(
        self,
        scorer: ImageScorer[Any],
        output: Path,
        files: Sequence[Path],
        *,
        heatmaps: bool = False,
        masks: bool = False,
        view: str = "raw",
        shown: Callable[[Path], str] = str,
    ) -> None:
        scorer.check_view(view)
        for one in scorer.each:
            _check_pictures(one, heatmaps, masks, _heat_scale(one, view)[0] if heatmaps else 0.0)
        self.scorer = scorer
        self.output = output
        self.files = files
        self.heatmaps = heatmaps
        self.masks = masks
        self.view = view
        self.shown = shown
        self.rows: dict[Path, ScoreRow] = {}
        self._common = common_folder(files)
        self._pictures = names.UniquePaths()

    def add(self, prediction: Prediction) -> None:
        """Note the score of a raw prediction of a file and write its pictures."""
        file = Path(prediction.image_path or "")
        picture = self._pictures.of(*file.relative_to(self._common).parts[:-1], f"{file.name}.png")
        if self.heatmaps:
            image = as_uint8(read_image(file, self.scorer.bit_depth))
            heat = overlay(image, prediction.anomaly_map, *_heat_scale(self.scorer.of(prediction), self.view))
            outlined = heat if prediction.mask is None else contour(heat, prediction.mask)
            save_image(self.output / "heatmaps" / picture, outlined)
        if self.masks and prediction.mask is not None:
            save_image(self.output / "masks" / picture, prediction.mask)
        score = self.scorer.normalize(prediction, self.view, DIGITS.get(self.view)).score
        row = ScoreRow(self.shown(file), "predict", "", -1, score, prediction.label, prediction.category)
        self.rows[file] = row

    def finish(self, problems: Mapping[Path, str]) -> Path:
        """Write scores.csv, with the reason of each image that has no score, and return its path."""
        without = {file: ScoreRow(self.shown(file), "predict", "", -1, math.nan, -1) for file in problems}
        reasons = {self.shown(file): reason for file, reason in problems.items()}
        table = self.output / "scores.csv"
        write_csv(table, *score_cells([(self.rows | without)[file] for file in self.files], reasons))
        flagged = sum(row.pred_label == 1 for row in self.rows.values())
        logger.info("%d images, %d above the threshold: %s", len(self.rows), flagged, self.shown(table))
        if problems:
            listed = list_problems(reasons)
            logger.warning("%d images have no score, see the column problem:\n%s", len(problems), listed)
        if self.view != "raw":
            above, raw = VIEW_THRESHOLDS[self.view], ", ".join(repr(one.image_threshold) for one in self.scorer.each)
            logger.info("Scores in view %s: anomalous above %g; the run's raw threshold is %s", self.view, above, raw)
        for low, high in dict.fromkeys(_heat_scale(one, self.view) for one in self.scorer.each if self.heatmaps):
            logger.info("Heat maps on one scale, %.6g (dark) to %.6g (bright)", low, high)
        return table


def predict_to_folder(
    scorer: ImageScorer[Any],
    files: Sequence[Path],
    output: Path,
    *,
    heatmaps: bool = False,
    masks: bool = False,
    view: str = "raw",
    strict: bool = False,
) -> dict[Path, str]:
    """Score image files and write scores.csv and pictures, as `PredictionFiles` has them.

    Returns:
        The reason of each image without a score; with `strict` the first one is an error instead.

    Raises:
        InputError: A view or pictures that the model cannot give, or no image that can be scored.
    """
    written = PredictionFiles(scorer, output, files, heatmaps=heatmaps, masks=masks, view=view)
    problems: dict[Path, str] = {}
    noted = None if strict else note_problem(problems)
    for prediction in scorer.iterate([str(file) for file in files], on_unreadable=noted):
        written.add(prediction)
    if not written.rows:
        reasons = {str(file): reason for file, reason in problems.items()}
        raise DataError("None of these images can be scored:\n" + list_problems(reasons))
    written.finish(problems)
    return problems


def note_problem(problems: dict[Path, str]) -> Callable[[str, str], None]:
    """Return a function that adds a file's path and reason to `problems`."""

    def note(path: str, reason: str) -> None:
        problems[Path(path)] = reason

    return note


def list_problems(problems: Mapping[str, str]) -> str:
    """Return a line for each file with its reason, of very many the first `MAX_LINES`."""
    lines = [f"  {file}: {reason}" for file, reason in problems.items()]
    more = [f"  ... and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    return "\n".join(lines[:MAX_LINES] + more)


def _heat_scale(scorer: ImageScorer[Any], view: str) -> tuple[float, float]:
    """Return the raw map values that heat maps show as darkest and brightest."""
    if view == "percent" and scorer.pixel_threshold is not None:
        return percent_window(scorer.pixel_threshold)
    return scorer.heat_range


def _check_pictures(scorer: ImageScorer[Any], heatmaps: bool, masks: bool, low: float) -> None:
    """Check that there are the maps, the map threshold and the finite scale (from `low`) that the pictures need."""
    if heatmaps and not scorer.has_maps:
        raise InputError("This model gives scores only, no maps; leave out --heatmaps.")
    if heatmaps and not math.isfinite(low):
        raise InputError("This run had no validation images, so its heat maps have no scale; leave out --heatmaps.")
    if masks and scorer.pixel_threshold is None:
        raise InputError("This run has no map threshold, so it gives no masks; leave out --masks.")
