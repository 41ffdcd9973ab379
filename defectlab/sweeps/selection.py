"""Which configuration is best, chosen on validation images; on the test images only where the user asks, and said."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from defectlab.data.manifest.manifest import Manifest
from defectlab.evaluation.metric_names import LOWER_IS_BETTER
from defectlab.evaluation.metrics import Metric
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, PixelImages
from defectlab.evaluation.suite import evaluate_images
from defectlab.results.evaluate import columns
from defectlab.results.run.run import Run
from defectlab.results.run.scores import ScoreRow
from defectlab.utils.errors import DataError, InputError

logger = logging.getLogger(__name__)

TIE_BREAKER = "pixel_AUROC"


@dataclass(frozen=True)
class Choice:
    """A run that was chosen, by what, and on which images: `oracle` says that they are the test images."""

    run: Run
    metric: str
    value: float
    split: str
    among: int
    oracle: bool

    def to_dict(self) -> dict[str, Any]:
        """Return what the record says of it."""
        return {"metric": self.metric, "value": self.value, "split": self.split, "among": self.among,
                "oracle": self.oracle}  # fmt: skip


def choose(runs: Sequence[Run], metric: str, *, test_if_needed: bool = False) -> Choice | None:
    """Return the best of finished runs of one dataset by a metric of the validation images.

    Of equal ones the best by the pixels' AUROC on the same images is chosen, then the first. Where no validation image
    is labelled anomalous, nothing can be chosen and None is returned, or, with `test_if_needed`, the best on the test
    images, marked as oracle. The log says which it was, and why.
    """
    values = [validation_metric(run, metric) for run in runs]
    name = runs[0].record["dataset"]["name"] if runs else ""
    if any(found.value is not None for found in values):
        known = [found.value for found in values]
        best = _best(runs, metric, known, lambda run: validation_metric(run, TIE_BREAKER).value)
        return _said(Choice(runs[best[0]], metric, best[1], "validation", len(runs), oracle=False), name)
    reason = next((found.reason for found in values), "nothing is finished")
    tested = [run.record["metrics"].get(metric) for run in runs]
    if not test_if_needed or all(value is None for value in tested):
        logger.warning("%s: no best configuration by %s of the validation images: %s", name, metric, reason)
        return None
    logger.warning(
        "%s: %s of the validation images cannot be computed (%s): the best is chosen on the TEST images, an oracle's "
        "choice, so that its test metrics are too good", name, metric, reason,
    )  # fmt: skip
    best = _best(runs, metric, tested, lambda run: run.record["metrics"].get(TIE_BREAKER))
    return _said(Choice(runs[best[0]], metric, best[1], "test", len(runs), oracle=True), name)


def _best(
    runs: Sequence[Run], metric: str, values: Sequence[float | None], tie_breaker: Callable[[Run], float | None]
) -> tuple[int, float]:
    """Return the place of the best run and its value; of equal ones the tie breaker decides, then the order."""
    better = min if metric in LOWER_IS_BETTER else max
    highest = better(value for value in values if value is not None)
    tied = [place for place, value in enumerate(values) if value == highest]
    if len(tied) > 1:
        second = [tie_breaker(runs[place]) for place in tied]
        tied = [tied[max(range(len(tied)), key=lambda at: (_or_none(second[at]), -at))]]
    return tied[0], highest


def _or_none(value: float | None) -> float:
    return -1.0 if value is None else value


def _said(choice: Choice, dataset: str) -> Choice:
    logger.info(
        "%s: best of %d by %s of the %s images (%.4f): %s",
        dataset, choice.among, choice.metric, choice.split, choice.value, choice.run.folder.name,
    )  # fmt: skip
    return choice


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
