"""What judges a trial: a metric of validation images. Test scores and maps are never read here. No torch here."""

from collections.abc import Iterable, Sequence

import numpy as np

from defectlab.data.manifest import Manifest
from defectlab.errors import DataError, InputError
from defectlab.evaluation.metrics import Metric
from defectlab.evaluation.sources import ArrayImages, PixelImages
from defectlab.evaluation.suite import evaluate_images
from defectlab.results.evaluate import columns
from defectlab.results.record import Run, ScoreRow

SPLIT = "validation"


def check_objective(manifests: Iterable[Manifest], objective: str) -> None:
    """Refuse datasets whose validation images cannot measure the objective.

    Raises:
        DataError: Names every one, what it lacks and what to do.
    """
    lacks = {manifest.name: _lack(manifest, objective) for manifest in manifests}
    problems = [f"{name}: {lack}" for name, lack in lacks.items() if lack]
    if problems:
        raise DataError(
            f"A search is judged by validation images, never by test images, and {objective} cannot be measured on:\n  "
            + "\n  ".join(problems)
            + "\nGive data.val_split_mode from_test (a part of the labelled test images validates), or folders of "
            "their own: val_split_mode from_dir with normal_val_dir and abnormal_val_dir."
        )


def _lack(manifest: Manifest, objective: str) -> str:
    if manifest.protocol.validation_is_test:
        return "the validation images are the test images (val_split_mode same_as_test)"
    entries = manifest.split(SPLIT)
    good, bad = (sum(entry.label == label for entry in entries) for label in (0, 1))
    if not good or not bad:
        return f"the validation images are {good} good and {bad} anomalous ones; it needs both"
    if objective.startswith("pixel") and not any(entry.mask for entry in entries):
        return "no validation image has a mask"
    return ""


def objective_value(runs: Sequence[Run], objective: str) -> Metric:
    """Return the mean of a metric over runs, each measured on its own validation images at its own thresholds.

    Runs are several where a trial has several datasets or seeds. Without a value in one of them there is none.
    """
    found = [validation_metric(run, objective) for run in runs]
    missing = [metric for metric in found if metric.value is None]
    if missing or not found:
        return missing[0] if missing else Metric(None, "there is no run")
    return Metric(float(np.mean([metric.value for metric in found if metric.value is not None])))


def validation_metric(run: Run, objective: str) -> Metric:
    """Return a metric of a run's validation images, from the raw scores and maps on record.

    Raises:
        InputError: There is no such metric.
    """
    if run.record["dataset"]["protocol"]["validation_is_test"]:
        return Metric(None, "the validation images are the test images")
    maps, masks = run.maps(SPLIT), run.packed_masks(SPLIT)
    thresholds = run.record["thresholds"]
    values = [thresholds[level]["value"] if thresholds else None for level in ("image", "pixel")]
    return metric_of(run.scores(SPLIT), maps, masks, objective, *values)


def metric_of(
    rows: Sequence[ScoreRow],
    maps: np.ndarray | None,
    masks: np.ndarray | None,
    objective: str,
    image_threshold: float | None,
    pixel_threshold: float | None,
) -> Metric:
    """Return a metric of rows, maps (n, H, W) and masks (n, H, W), which may be packed along their width."""
    scores, labels = columns(rows)
    if not scores.size:
        return Metric(None, "there are no validation images")
    images: PixelImages | None = None
    lack = None
    if objective.startswith("pixel"):
        if maps is None or masks is None:
            lack = "there are no anomaly maps" if maps is None else "there are no masks"
        else:
            images = ArrayImages(maps, masks)
    found = evaluate_images(
        scores, labels, images, lack, image_threshold=image_threshold, pixel_threshold=pixel_threshold
    )
    if objective not in found:
        raise InputError(f"There is no metric {objective!r}. Metrics are {', '.join(found)}.")
    return found[objective]
