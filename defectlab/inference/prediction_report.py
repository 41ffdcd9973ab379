"""Report of predictions as files: pictures on one fixed scale, tables, and correctness of the decisions."""

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from defectlab.data.image_sources import find_images, unreadable_files
from defectlab.evaluation.threshold_rules import choose_image_threshold
from defectlab.inference.detector import Detector
from defectlab.inference.expected_labels import CLASSES, Expected, comparison, expectations, is_correct
from defectlab.inference.figures import image_figure
from defectlab.inference.prediction_files import log_problems, refuse_all, unfit_for
from defectlab.results.run.scores import write_scores
from defectlab.utils import paths
from defectlab.utils.files import write_json
from defectlab.utils.progress import progress_bar
from defectlab.visualization.canvas import BAD, GOOD, LINE, draw_shares, new_figure, to_image
from defectlab.visualization.overlays import save_image
from defectlab_runtime import names
from defectlab_runtime.errors import InputError, OptionError, unknown_name
from defectlab_runtime.image_sources import common_folder
from defectlab_runtime.images import as_uint8, read_image
from defectlab_runtime.normalization import VIEW_THRESHOLDS, normalize_percent_at, raw_from_percent
from defectlab_runtime.overlays import contour, overlay
from defectlab_runtime.prediction import Prediction
from defectlab_runtime.prediction_files import note_problem
from defectlab_runtime.scores import ScoreRow

logger = logging.getLogger(__name__)

THRESHOLDS = ("training", "recomputed")
TYPES = ("image", "pixel")
HALF_WINDOW = 50.0  # heat maps range from 100 - this to 100 + this, where 100 is the threshold
REPORT = "anomaly_test_output.json"


def report_predictions(
    run: str | Path | Detector,
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    threshold: str | float = "training",
    threshold_type: str = "image",
    only_wrong: bool = False,
    panels: bool = False,
    device: str = "auto",
    strict: bool = False,
    verify: bool = True,
    category: str | None = None,
) -> Path:
    """Score images and write all results under `output`; return the path of anomaly_test_output.json.

    `scores.csv` (raw scores); `predictions/KIND/NAME.png`, the image with the outline of what was found;
    `heatmaps/KIND/NAME.png`, all on one scale that is the same for every run: 50 to 150, the map's threshold being 100;
    `segmentations/KIND/NAME.png`; `cumulative_histogram.png`; with `panels`, `images/ok|wrong|unknown/KIND/NAME.png`,
    image, map, overlay and outline side by side. Pictures have the images' own size (panels but 512 pixels). KIND is
    `good`, a kind of defect or `unknown`, as the images' folders say (`expectations`).

    Args:
        run: Run folder, checkpoint or a detector.
        source: Image file, folder, glob, or several of them.
        output: Folder to write to.
        threshold: "training" takes the run's own image threshold; "recomputed" the one with the best F1 on these very
            images, an oracle's, which the JSON says. Where they have no labels, the run's own is taken, with a warning.
            A number is where the threshold is to lie while the run's own stays at 100: 110 is a tenth above it.
        threshold_type: Which of the run's own thresholds decides images: "image", or "pixel", that of the maps.
        only_wrong: Pictures only of images that were decided wrongly.
        panels: Whether the panels are drawn too.
        device: "auto" takes the GPU where there is one; for a `run` that is no detector yet.
        strict: Whether an image that cannot be read is an error. Else it has no score, and its reason stands in the
            column `problem` of scores.csv and under `unreadable` in the JSON.
        verify: False does not compare the checkpoint with its digest; for a `run` that is no detector yet.
        category: That of the images, for a model that serves several.

    Raises:
        InputError: No run, no images, none that can be read (with `strict`: one that cannot), or a run without a
            threshold.
    """
    _check_options(threshold, threshold_type)
    output = paths.resolve(output)
    files = find_images(source)
    problems = unreadable_files(files, strict=strict)
    refuse_all(files, problems)
    detector = run if isinstance(run, Detector) else Detector.load(run, device=device, verify=verify)
    if category is not None:
        detector = detector.of_category(category)
    if len(detector.each) > 1:
        raise InputError(
            f"A report is of one category, and this model serves {', '.join(detector.categories)}: say which, such as "
            f"--category {next(iter(detector.categories))}."
        )
    problems |= unfit_for(detector, [file for file in files if file not in problems], strict)
    refuse_all(files, problems)
    if threshold_type == "pixel":
        detector = detector.decided_at(detector.pixel_threshold)
    detector.check_view("percent")
    expected = dict(zip(files, expectations(files), strict=True))
    usable = [file for file in files if file not in problems]
    warnings = _warnings([expected[file] for file in usable], threshold)
    labels = {file: expected[file].label for file in usable}
    source_of = "training" if threshold_type == "image" else "training, of the maps"
    middle, own = VIEW_THRESHOLDS["percent"] or 100.0, detector.image_threshold or 0.0
    if isinstance(threshold, int | float):
        middle, source_of = float(threshold), f"{threshold:g} % of training's"
        detector = detector.decided_at(raw_from_percent(middle, own))
    elif threshold == "recomputed" and {0, 1} <= set(labels.values()):
        detector, source_of = _recomputed(detector, labels), "recomputed on these images: an oracle's"
        own = detector.image_threshold or 0.0
    writer = _Writer(detector, output, only_wrong, panels, own, middle, common_folder(files))
    with progress_bar("Scoring", len(usable)) as progress:
        on_unreadable = None if strict else note_problem(problems)
        for place, found in enumerate(detector.iterate(list(map(str, usable)), on_unreadable=on_unreadable)):
            file = Path(found.image_path or "")
            writer.add(file, found, expected[file])
            progress(place + 1, len(usable))
    return writer.finish(source_of, warnings, problems)


def _check_options(threshold: str | float, threshold_type: str) -> None:
    if threshold_type not in TYPES:
        raise OptionError(unknown_name("threshold_type", str(threshold_type), TYPES))
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        if threshold not in THRESHOLDS:
            known = f"{unknown_name('threshold', str(threshold), THRESHOLDS)} Or a number, 100 being the run's own."
            raise OptionError(known)
    elif not 0 < threshold <= 1000:
        raise OptionError(f"threshold must be above 0 and at most 1000, where the run's own is 100; got {threshold}.")


def _warnings(expected: Sequence[Expected], threshold: str | float) -> list[str]:
    """Log and return warnings about predictions that cannot be compared with labels of both classes."""
    known = {one.label for one in expected} - {-1}
    found = []
    if not known:
        found.append(
            "No folder says what is good: every image is unknown, so f1_score is 0 and nothing counts as wrong."
        )
    elif known != {0, 1}:
        found.append(f"All images with a label are {CLASSES[known.pop()]}: f1_score says little without both kinds.")
    if threshold == "recomputed" and found:
        found.append("No threshold can be recomputed on these images: the run's own is used.")
    for text in found:
        logger.warning(text)
    return found


def _recomputed(detector: Detector, labels: Mapping[Path, int]) -> Detector:
    """Return the detector with the threshold that has the best F1 on the files of `labels`, without unknown ones."""
    known = [str(file) for file, label in labels.items() if label >= 0]
    found = list(detector.iterate(known, on_unreadable=note_problem({})))
    scores = np.array([one.score for one in found])
    chosen = choose_image_threshold(
        scores, np.array([labels[Path(one.image_path or "")] for one in found]), source="these images"
    )
    if chosen.value is None:
        raise InputError(f"No threshold can be recomputed: {chosen.reason}.")
    logger.info("Image threshold %r instead of the run's %r: %s", chosen.value, detector.image_threshold, chosen.reason)
    return detector.decided_at(chosen.value)


class _Writer:
    """Writes the files of a report: pictures of each added image, then the tables."""

    def __init__(
        self, detector: Detector, output: Path, only_wrong: bool, panels: bool, own: float, middle: float, common: Path
    ) -> None:
        self.detector = detector
        self.common = common
        self.output = output
        self.only_wrong = only_wrong
        self.panels = panels
        self.own = own  # raw threshold that is shown as 100
        self.middle = middle  # value at which the deciding threshold is shown
        self.rows: list[ScoreRow] = []
        self.observations: list[dict[str, Any]] = []
        self._taken: set[str] = set()

    def add(self, file: Path, found: Prediction, expected: Expected) -> None:
        """Add one predicted image to the report."""
        correct = is_correct(expected, found.label)
        picture = self._name(file, expected.kind)
        drawn = correct is False or not self.only_wrong
        heat, mask = self._draw(file, picture, found, correct) if drawn else ("", "")
        self.rows.append(
            ScoreRow(paths.relative(file), "predict", expected.kind, expected.label, found.score, found.label)
        )
        shown = normalize_percent_at(found.score, self.own, middle=self.middle, anomalous=found.label == 1, digits=3)
        self.observations.append(
            {
                "image_path": paths.relative(file.parent),
                "file_name": file.name,
                "expectation": "" if expected.label < 0 else CLASSES[expected.label],
                "prediction": CLASSES[found.label],
                "prediction_mask": mask,
                "prediction_heatmap": heat,
                "is_correct": correct,
                "anomaly_score": f"{shown:.3f}",
            }
        )

    def finish(self, source: str, warnings: Sequence[str], problems: Mapping[Path, str]) -> Path:
        """Write scores.csv, the histogram and the JSON."""
        scores = np.array([row.score for row in self.rows])
        labels = np.array([row.label for row in self.rows])
        limit = self.detector.image_threshold
        reasons = {paths.relative(file): reason for file, reason in problems.items()}
        without = [ScoreRow(name, "predict", "", -1, math.nan, -1) for name in reasons]
        write_scores(self.output / "scores.csv", [*self.rows, *without], reasons)
        _cumulative_picture(scores, labels, limit).save(self.output / "cumulative_histogram.png")
        content = {
            "observations": self.observations,
            "threshold": self.middle,
            "unnormalized_threshold": limit,
            "threshold_source": source,
            **comparison(scores, labels, limit),
            "warnings": list(warnings),
            "unreadable": reasons,
            "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        write_json(self.output / REPORT, content)
        verdicts = [one["is_correct"] for one in self.observations]
        known = sum(verdict is not None for verdict in verdicts)
        wrong = f"{verdicts.count(False)} of {known} with a label wrong" if known else "none with a label"
        flagged = sum(row.pred_label == 1 for row in self.rows)
        logger.info(
            "%d images, %d above the threshold, %s: %s",
            len(self.rows), flagged, wrong, paths.relative(self.output),
        )  # fmt: skip
        log_problems(problems)
        return self.output / REPORT

    def _draw(self, file: Path, picture: Path, found: Prediction, correct: bool | None) -> tuple[str, str]:
        """Write the pictures of one image; return the paths of heat map and segmentation relative to the output."""
        image = as_uint8(read_image(file, self.detector.bit_depth))
        if np.isnan(found.anomaly_map).all():  # a model without maps
            save_image(self.output / "predictions" / picture, image)
            return "", ""
        seen = self.detector.normalize(found, "percent").anomaly_map
        heat, middle = Path("heatmaps") / picture, 100.0
        save_image(self.output / heat, overlay(image, seen, middle - HALF_WINDOW, middle + HALF_WINDOW))
        mask = ""
        outlined = image
        if found.mask is not None:
            outlined = contour(image, found.mask)
            mask = (Path("segmentations") / picture).as_posix()
            save_image(self.output / mask, found.mask)
        save_image(self.output / "predictions" / picture, outlined)
        if self.panels:
            verdict = {None: "unknown", True: "ok", False: "wrong"}[correct]
            path = self.output / "images" / verdict / picture
            path.parent.mkdir(parents=True, exist_ok=True)
            image_figure(self.detector, found).save(path)
        return heat.as_posix(), mask

    def _name(self, file: Path, kind: str) -> Path:
        """Return a unique KIND/NAME.png; a name that is taken is extended by the file's ending or folders."""
        folders = "-".join(file.parent.relative_to(self.common).parts)
        long = f"{folders or self.common.name}-{file.name}"
        more = (f"{long}-{number}" for number in count(2))  # folders a/b and a-b
        named = (f"{name}.png" for name in chain((file.stem, file.name, long), more))
        pictures = (Path(names.path(kind), names.path(name)) for name in named)
        picture = next(path for path in pictures if names.alike(path.as_posix()) not in self._taken)
        self._taken.add(names.alike(picture.as_posix()))
        return picture


def _cumulative_picture(scores: np.ndarray, labels: np.ndarray, threshold: float | None) -> Any:
    """Return a picture of the shares of good, anomalous and unknown (-1) images at or below each score."""
    figure, (axis,) = new_figure((8, 5))
    classes = ((0, "good", GOOD), (1, "defect", BAD), (-1, "unknown", "#7a7a80"))
    by_class = {name: (scores[labels == label], colour) for label, name, colour in classes if (labels == label).any()}
    draw_shares(axis, by_class, from_zero=True)
    if threshold is not None:
        axis.axvline(threshold, color=LINE, linewidth=2, label=f"threshold {threshold:.4g}")
    axis.set(xlabel="image score", ylabel="share of images with at most this score", ylim=(0, 1.02))
    axis.legend(frameon=False, loc="lower right")
    return to_image(figure)
