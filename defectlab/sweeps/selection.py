"""Selection of the best run on validation images, or on test images if asked for, which the record then says."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from defectlab.data.manifest.manifest import Manifest
from defectlab.evaluation.metric_names import LOWER_IS_BETTER
from defectlab.evaluation.metrics import Metric
from defectlab.evaluation.suite import evaluate
from defectlab.results.calibration import choosing_rows
from defectlab.results.evaluate import columns
from defectlab.results.pixel_grid import check_rows, pixel_labels
from defectlab.results.run.category_run import category_runs
from defectlab.results.run.run import Run
from defectlab_runtime.errors import DataError, InputError

logger = logging.getLogger(__name__)

TIE_BREAKER = "pixel_AUROC"
SPLIT = "validation"


@dataclass(frozen=True)
class Choice:
    """A chosen run, with the metric and split it was chosen by; `oracle` is true if these are the test images."""

    run: Run
    metric: str
    value: float
    split: str
    among: int
    oracle: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as plain data for the record, without the run."""
        return {name: value for name, value in vars(self).items() if name != "run"}


def choose(runs: Sequence[Run], metric: str, *, test_if_needed: bool = False) -> Choice | None:
    """Return the best of the finished runs of one dataset by a metric on the validation images.

    Of equal ones the best by the pixels' AUROC on the same images is chosen, then the first. Where no validation image
    is labelled anomalous, nothing can be chosen and None is returned, or, with `test_if_needed`, the best on the test
    images, marked as oracle. The log says which it was, and why.
    """
    dataset = runs[0].record.dataset.name if runs else ""
    validated = [validation_metric(run, metric) for run in runs]
    oracle = all(found.value is None for found in validated)

    def value_of(run: Run, name: str) -> float | None:
        return run.record.metrics.get(name) if oracle else validation_metric(run, name).value

    values = [value_of(run, metric) for run in runs] if oracle else [found.value for found in validated]
    if oracle:
        reason = next((found.reason for found in validated), "nothing is finished")
        if not test_if_needed or all(value is None for value in values):
            logger.warning("%s: no best configuration by %s of the validation images: %s", dataset, metric, reason)
            return None
        logger.warning(
            "%s: %s of the validation images cannot be computed (%s): the best is chosen on the TEST images, an "
            "oracle's choice, so that its test metrics are too good", dataset, metric, reason,
        )  # fmt: skip
    best, value = _best(runs, metric, values, lambda run: value_of(run, TIE_BREAKER))
    choice = Choice(best, metric, value, "test" if oracle else SPLIT, len(runs), oracle)
    logger.info(
        "%s: best of %d by %s of the %s images (%.4f): %s",
        dataset, choice.among, metric, choice.split, value, best.folder.name,
    )  # fmt: skip
    return choice


def _best(
    runs: Sequence[Run], metric: str, values: Sequence[float | None], tie_breaker: Callable[[Run], float | None]
) -> tuple[Run, float]:
    """Return the best run and its value; ties are decided by the tie breaker, then by the order."""
    better = min if metric in LOWER_IS_BETTER else max
    best = better(value for value in values if value is not None)
    tied = [run for run, value in zip(runs, values, strict=True) if value == best]
    if len(tied) == 1:
        return tied[0], best
    second = [-1.0 if (value := tie_breaker(run)) is None else value for run in tied]
    return tied[second.index(max(second))], best


def check_objective(manifests: Iterable[Manifest], objective: str) -> None:
    """Check that the objective can be measured on the validation images of all datasets.

    Raises:
        DataError: Names every dataset whose images cannot, what it lacks and what to do.
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
    """Return what the validation images lack to measure the objective, as text; empty if nothing."""
    if manifest.protocol.validation_is_test:
        return "the validation images are the test images (val_split_mode same_as_test)"
    for one in manifest.categories:
        if lack := _lack(one, objective):
            return f"of category {one.name}: {lack}"
    entries = [entry for entry in manifest.split(SPLIT) if manifest.chooses(entry)]
    good, bad = (sum(entry.label == label for entry in entries) for label in (0, 1))
    if not good or not bad:
        return f"the validation images are {good} good and {bad} anomalous ones; it needs both"
    if objective.startswith("pixel") and not any(entry.mask for entry in entries):
        return "no validation image has a mask"
    return ""


def objective_value(runs: Sequence[Run], objective: str) -> Metric:
    """Return the mean of a metric over runs, each measured on its validation images at its thresholds.

    Runs are several where a trial has several datasets or seeds. Without a value in one of them there is none.
    """
    found = [validation_metric(run, objective) for run in runs]
    values = [metric.value for metric in found if metric.value is not None]
    if not found or len(values) < len(found):
        return next((metric for metric in found if metric.value is None), Metric(None, "there is no run"))
    return Metric(float(np.mean(values)))


def validation_metric(run: Run, objective: str) -> Metric:
    """Return a metric of a run's validation images, from the raw scores and maps on record.

    Images held back for calibration are left out, and of pixel metrics defects without a mask, as everywhere. For a run
    that serves several categories it is the mean over them.

    Raises:
        InputError: There is no such metric, or there is another number of maps than of images.
    """
    if run.record.dataset.protocol.validation_is_test:
        return Metric(None, "the validation images are the test images")
    if run.record.categories:
        return objective_value(category_runs(run), objective)
    rows = choosing_rows(run.record, run.scores(SPLIT))
    scores, labels = columns(rows)
    if not scores.size:
        return Metric(None, "there are no validation images")
    pixels = (run.maps(SPLIT), run.packed_masks(SPLIT)) if objective.startswith("pixel") else (None, None)
    if pixels[0] is not None:
        check_rows(run, pixels[0], SPLIT)
        labels = pixel_labels(run, rows)
    thresholds = run.record.thresholds
    found = evaluate(
        scores, labels, *pixels, image_threshold=thresholds.image.value, pixel_threshold=thresholds.pixel.value
    )
    if objective not in found:
        raise InputError(f"There is no metric {objective!r}. Metrics are {', '.join(found)}.")
    return found[objective]
