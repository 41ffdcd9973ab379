"""Scoring of many images with results written to a folder: scores.csv, heat maps on one scale, masks."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from defectlab.data.image_facts import probe_all
from defectlab.data.image_sources import find_images, list_problems, unreadable_files
from defectlab.data.manifest.bit_depth import fits, unused_range
from defectlab.inference.detector import Detector
from defectlab.inference.figures import prediction_figure, prediction_name
from defectlab.models.registry import model_info
from defectlab.results.run.scores import ScoreRow, write_scores
from defectlab.utils import paths
from defectlab.utils.progress import progress_bar
from defectlab.visualization.overlays import contour, overlay, save_image
from defectlab.visualization.segmentation import check_which
from defectlab_runtime import names
from defectlab_runtime.errors import DataError, InputError
from defectlab_runtime.image_sources import common_folder
from defectlab_runtime.images import as_uint8, read_image
from defectlab_runtime.normalization import VIEW_THRESHOLDS, check_view, percent_window
from defectlab_runtime.prediction import Prediction

logger = logging.getLogger(__name__)

DIGITS = {"min_max": 4, "percent": 2}  # decimal places of the scores in scores.csv by view


def predict_to_folder(
    run: str | Path,
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    heatmaps: bool = False,
    masks: bool = False,
    view: str = "raw",
    figures: str | None = None,
    device: str = "auto",
    strict: bool = False,
    verify: bool = True,
    category: str | None = None,
) -> Path:
    """Score images and write `scores.csv`, and on request `heatmaps/` and `masks/`, under `output`.

    `figures` "first" or "all" writes `figures/DATASET_pre_N_SCORE.png` of the first image or of all: image, heat map,
    mask and boundaries side by side (`segmentation_figures`), and prints each one's score.

    `view` is that of the scores in scores.csv: raw, min_max (0.5 is the threshold, four digits) or percent (100 is the
    threshold, two digits). Rounding never moves a score across the threshold.

    All heat maps share one scale, so that two pictures can be compared: `Detector.heat_range`, or in view percent from
    50 to 150 around the maps' threshold, which compares runs too. Pictures are named after the image's path below what
    all images share.

    Images that cannot be read, or do not fit the run's input region, have no score: their reason stands in the column
    `problem`. With `strict` they are an error instead. `device` and `verify` are those of `Detector.load`.

    Raises:
        InputError: No such run, no images, none that can be read (with `strict`: one that cannot), or heat maps or
            masks asked of a run that had no validation images to take their scale or threshold from. All before the
            first image is scored.
    """
    check_view(view)
    check_which(figures)
    output = paths.resolve(output)
    files = find_images(source)
    problems = unreadable_files(files, strict=strict)
    refuse_all(files, problems)
    detector = Detector.load(run, device=device, verify=verify, category=category)
    problems |= unfit_for(detector, [file for file in files if file not in problems], strict)
    refuse_all(files, problems)
    detector.check_view(view)
    for one in detector.each:
        _check_pictures(one, heatmaps, masks, figures, _heat_scale(one, view)[0])
    common = common_folder(files)
    rows: dict[Path, ScoreRow] = {}
    pictures = names.UniquePaths()
    usable = [str(file) for file in files if file not in problems]
    with progress_bar("Scoring", len(usable)) as progress:
        for prediction in detector.iterate(usable, on_unreadable=None if strict else note_problem(problems)):
            file = Path(prediction.image_path or "")
            shown = detector.normalize(prediction, view, DIGITS.get(view)).score
            row = ScoreRow(paths.relative(file), "predict", "", -1, shown, prediction.label, prediction.category)
            picture = pictures.of(*file.relative_to(common).parts[:-1], f"{file.name}.png")
            if heatmaps:
                image = as_uint8(read_image(file, detector.bit_depth))
                scale = _heat_scale(detector.of(prediction), view)
                _write_heatmap(output / "heatmaps" / picture, image, prediction, scale)
            if prediction.mask is not None and masks:
                save_image(output / "masks" / picture, prediction.mask)
            if figures == "all" or (figures == "first" and not rows):
                path = output / "figures" / prediction_name(detector, prediction, len(rows))
                path.parent.mkdir(parents=True, exist_ok=True)
                prediction_figure(detector, prediction).save(path)
                print(names.terminal(f"{row.image_path}: score {prediction.score:.4g}, {paths.relative(path)}"))
            rows[file] = row
            progress(len(rows), len(usable))
    without = {file: ScoreRow(paths.relative(file), "predict", "", -1, math.nan, -1) for file in problems}
    reasons = {paths.relative(file): reason for file, reason in problems.items()}
    write_scores(output / "scores.csv", [(rows | without)[file] for file in files], reasons)
    flagged = sum(row.pred_label == 1 for row in rows.values())
    logger.info("%d images, %d above the threshold: %s", len(rows), flagged, paths.relative(output / "scores.csv"))
    log_problems(problems)
    if view != "raw":
        above, raw = VIEW_THRESHOLDS[view], ", ".join(repr(one.image_threshold) for one in detector.each)
        logger.info("Scores in view %s: anomalous above %g; the run's raw threshold is %s", view, above, raw)
    for low, high in dict.fromkeys(_heat_scale(one, view) for one in detector.each if heatmaps):
        logger.info("Heat maps on one scale, %.6g (dark) to %.6g (bright)", low, high)
    return output / "scores.csv"


def unfit_for(detector: Detector, files: Sequence[Path], strict: bool) -> dict[Path, str]:
    """Return the reason of each readable image that does not fit the detector's input region or bit depth.

    Images of 16 bits that use little of their range are warned of where the model was trained without a bit depth.

    Raises:
        DataError: With `strict`, there are some; names them all.
    """
    region, bit_depth = detector.model.preprocessing.region, detector.bit_depth
    facts = dict(zip(files, probe_all(files), strict=True))
    if bit_depth is None and (sentence := unused_range(facts.values())):
        logger.warning("%s when training", sentence)
    unfit = {file: f"values beyond bit_depth {bit_depth}" for file, fact in facts.items() if not fits(fact, bit_depth)}
    if region is not None:
        sizes = ((file, region.problem((fact.height, fact.width))) for file, fact in facts.items())
        unfit |= {file: why for file, why in sizes if why}
    if strict and unfit:
        raise DataError("What this run looks at does not fit these images:\n" + list_problems(unfit))
    return unfit


def refuse_all(files: Sequence[Path], problems: Mapping[Path, str]) -> None:
    """Raise a DataError that names the reasons where no image is left to score."""
    if len(problems) == len(files):
        raise DataError("None of these images can be scored:\n" + list_problems(problems))


def note_problem(problems: dict[Path, str]) -> Callable[[str, str], None]:
    """Return a function that adds a file's path and reason to `problems`."""

    def note(path: str, reason: str) -> None:
        problems[Path(path)] = reason

    return note


def log_problems(problems: Mapping[Path, str]) -> None:
    """Warn of the images without a score, the first by name."""
    if problems:
        logger.warning("%d images have no score, see the column problem:\n%s", len(problems), list_problems(problems))


def _heat_scale(detector: Detector, view: str) -> tuple[float, float]:
    """Return the raw map values that heat maps show as darkest and brightest."""
    if view == "percent" and detector.pixel_threshold is not None:
        return percent_window(detector.pixel_threshold)
    return detector.heat_range


def _check_pictures(detector: Detector, heatmaps: bool, masks: bool, figures: str | None, low: float) -> None:
    """Check that the run has the maps, the map threshold and the finite scale (from `low`) that the pictures need."""
    drawn = "--heatmaps" if heatmaps else "--figures" if figures else None
    if drawn and not math.isfinite(low):
        raise InputError(f"This run had no validation images, so its heat maps have no scale; leave out {drawn}.")
    if drawn and not model_info(detector.model.model_name).maps:
        raise InputError(f"{detector.model.name} gives scores only, no maps; leave out {drawn}.")
    if (masks or figures) and detector.pixel_threshold is None:
        which = "--masks" if masks else "--figures"
        raise InputError(f"This run has no map threshold, so it gives no masks; leave out {which}.")


def _write_heatmap(path: Path, image: np.ndarray, prediction: Prediction, scale: tuple[float, float]) -> None:
    heat = overlay(image, prediction.anomaly_map, *scale)
    save_image(path, heat if prediction.mask is None else contour(heat, prediction.mask))
