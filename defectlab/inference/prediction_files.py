"""Scoring of many images with results written to a folder: scores.csv, heat maps on one scale, masks."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from defectlab.data.image_facts import probe_all
from defectlab.data.image_sources import find_images, list_problems, unreadable_files
from defectlab.data.manifest.bit_depth import fits, unused_range
from defectlab.inference.detector import Detector
from defectlab.inference.figures import prediction_figure, prediction_name
from defectlab.utils import paths
from defectlab.utils.disk import disk_errors
from defectlab.utils.progress import progress_bar
from defectlab.visualization.segmentation import check_which
from defectlab_runtime import names
from defectlab_runtime.errors import DataError, InputError
from defectlab_runtime.normalization import check_view
from defectlab_runtime.prediction import Prediction
from defectlab_runtime.prediction_files import PredictionFiles, note_problem

logger = logging.getLogger(__name__)


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
    _check_figures(detector, figures)
    shown: dict[str, Any] = {"heatmaps": heatmaps, "masks": masks, "view": view, "shown": paths.relative}
    written = PredictionFiles(detector, output, files, **shown)
    usable = [str(file) for file in files if file not in problems]
    with progress_bar("Scoring", len(usable)) as progress:
        for prediction in detector.iterate(usable, on_unreadable=None if strict else note_problem(problems)):
            with disk_errors(output / "scores.csv"):
                if figures == "all" or (figures == "first" and not written.rows):
                    _write_figure(detector, prediction, output, len(written.rows))
                written.add(prediction)
            progress(len(written.rows), len(usable))
    with disk_errors(output / "scores.csv"):
        return written.finish(problems)


def unfit_for(detector: Detector, files: Sequence[Path], strict: bool) -> dict[Path, str]:
    """Return the reason of each readable image that does not fit the detector's input region or bit depth.

    Images of 16 bits that use little of their range are warned of where the model was trained without a bit depth.

    Raises:
        DataError: With `strict`, there are some; names them all.
    """
    region, bit_depth = detector.preprocessing.region, detector.bit_depth
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


def log_problems(problems: Mapping[Path, str]) -> None:
    """Warn of the images without a score, the first by name."""
    if problems:
        logger.warning("%d images have no score, see the column problem:\n%s", len(problems), list_problems(problems))


def _check_figures(detector: Detector, figures: str | None) -> None:
    """Check that the run has the maps, the scale and the map threshold that figures need."""
    if figures is None:
        return
    if not detector.has_maps:
        raise InputError(f"{detector.model_name} gives scores only, no maps; leave out --figures.")
    for one in detector.each:
        if not math.isfinite(one.heat_range[0]):
            raise InputError("This run had no validation images, so its maps have no scale; leave out --figures.")
        if one.pixel_threshold is None:
            raise InputError("This run has no map threshold, so it gives no masks; leave out --figures.")


def _write_figure(detector: Detector, prediction: Prediction, output: Path, number: int) -> None:
    path = output / "figures" / prediction_name(detector, prediction, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    prediction_figure(detector, prediction).save(path)
    shown = paths.relative(prediction.image_path or "")
    print(names.terminal(f"{shown}: score {prediction.score:.4g}, {paths.relative(path)}"))
