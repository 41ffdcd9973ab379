"""Thresholds and metrics computed from the raw scores and maps of a run's record, without a model."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from defectlab.evaluation.bootstrap import image_intervals
from defectlab.evaluation.metrics import prevalence, trivial_f1
from defectlab.evaluation.pixel.bootstrap import pixel_intervals
from defectlab.evaluation.pixel.maps_and_masks import PixelImages, maps_problem
from defectlab.evaluation.pixel.thresholds import choose_pixel_threshold
from defectlab.evaluation.suite import evaluate_images
from defectlab.evaluation.threshold import DefaultRule, Threshold
from defectlab.evaluation.threshold_rules import choose, choose_image_threshold
from defectlab.results.groups import evaluate_groups, row_groups
from defectlab.results.per_defect import per_defect
from defectlab.results.pixel_grid import evaluation_record, pixel_images
from defectlab.results.record_parts import interval_records
from defectlab.results.run.category_run import category_runs, image_thresholds
from defectlab.results.run.result_records import IntervalRecord, ThresholdRecord, Thresholds
from defectlab.results.run.run import Run
from defectlab_runtime.decision import decision
from defectlab_runtime.errors import OptionError
from defectlab_runtime.scores import ScoreRow

logger = logging.getLogger(__name__)

AUPIMO = "pixel_AUPIMO"  # computed by the engine on request; independent of thresholds, so it is preserved


def choose_thresholds(
    rows: Sequence[ScoreRow],
    maps: np.ndarray | None,
    masks: np.ndarray | None,
    by: DefaultRule | None = None,
    pixel_labels: np.ndarray | None = None,
) -> tuple[Threshold, Threshold]:
    """Choose the image and the pixel threshold from one split's rows, maps (n, H, W) and masks (n, H, W).

    Masks may be packed along their width, as records hold them. `pixel_labels` (n,) are those of the rows where left
    out, -1 where an image's pixels do not count.
    """
    scores, labels = columns(rows)
    by = by or DefaultRule()
    image = threshold_by(by, scores, labels)
    if maps is None:
        return image, Threshold(None, "none", "validation", "the model gives no maps")
    if by.pixel_as_image and image.value is not None:
        return image, replace(image, reason=f"the image threshold, for maps have the scores' unit: {image.reason}")
    counted = labels if pixel_labels is None else pixel_labels
    problem = maps_problem(maps, counted)
    if problem:
        return image, Threshold(None, "none", "validation", problem)
    return image, choose_pixel_threshold(maps, masks, counted)


def threshold_by(by: DefaultRule, scores: np.ndarray, labels: np.ndarray) -> Threshold:
    """Choose a threshold by a model's rule from scores (n,) and labels (n,).

    Where the images do not allow it (the rule needs defects, and there are none), the rule of the other models
    decides, and the log says so.
    """
    if by.rule != "f1":
        try:
            found = choose(by.rule, scores, labels, by.options, "validation")
            if by.rule == "mean_plus_k_std" and (labels == 0).sum() == 1:
                logger.warning(
                    "One good validation image has no standard deviation: the threshold is its score, %.6g. Give the "
                    "validation more good images, or choose by another rule.",
                    found.value,
                )
            return found
        except OptionError as error:
            logger.warning("%s The threshold is chosen by the default rule instead.", error)
    return choose_image_threshold(scores, labels)


def evaluate_run(
    run: Run,
    thresholds: Thresholds | None = None,
    group_threshold: ThresholdRecord | None = None,
) -> dict[str, Any]:
    """Compute the test metrics at the record's thresholds or at others, without writing anything.

    Returns:
        Fields of the record: `evaluation` (the grid of the pixel metrics), `metrics` by name (None where one cannot be
        computed), `metric_reasons` for those, `intervals` of those that can be, `per_defect`, in `trivial` what calling
        every image anomalous gives, and for a run with `data.group` the same of `groups`, at `group_threshold`, else at
        the recorded one or one chosen now. Where maps were not kept, what is said of pixels stays as it was computed
        while they were there. For a run that serves several categories, those of each are in `categories`, and metrics
        are their means.
    """
    if run.record.categories:
        return _evaluate_categories(run, thresholds or run.record.thresholds)
    thresholds = thresholds or run.record.thresholds
    image, pixel = thresholds.image.value, thresholds.pixel.value
    tested = run.scores("test")
    scores, labels = columns(tested)
    whole = run.has_all_maps
    images, lack = pixel_images(run) if whole else (None, None)
    results = evaluate_images(scores, labels, images, lack, image_threshold=image, pixel_threshold=pixel)
    metrics = {name: metric.value for name, metric in results.items()}
    reasons = {name: metric.reason for name, metric in results.items() if metric.value is None}
    if AUPIMO in run.record.metrics:
        metrics[AUPIMO] = run.record.metrics[AUPIMO]
        reasons |= {name: reason for name, reason in run.record.metric_reasons.items() if name == AUPIMO}
    if not scores.size:
        reasons = dict.fromkeys(metrics, "there are no test images")
    if not whole:
        metrics |= {name: value for name, value in run.record.metrics.items() if name.startswith("pixel")}
        reasons = {name: reason for name, reason in reasons.items() if metrics[name] is None}
        reasons |= {k: v for k, v in run.record.metric_reasons.items() if k.startswith("pixel")}
    intervals = _intervals(run, tested, images, metrics, image, pixel)
    earlier = () if whole else run.record.per_defect
    kinds = per_defect(tested, images, image, pixel, earlier, row_groups(run.record, tested))
    groups = evaluate_groups(run, tested, thresholds.image.rule, group_threshold)
    return {
        "evaluation": evaluation_record(run),
        "metrics": metrics,
        "metric_reasons": reasons,
        "intervals": intervals,
        "per_defect": kinds,
        "trivial": {"image_F1Score": trivial_f1(labels), "image_AUPR": prevalence(labels)},
        **({} if groups is None else {"groups": groups}),
    }


def _evaluate_categories(run: Run, thresholds: Thresholds) -> dict[str, Any]:
    """Return the results of `evaluate_run` for a run that serves several categories, each as a run of its own."""
    results = {
        str(one.category): evaluate_run(one, thresholds.categories.get(str(one.category), one.record.thresholds))
        for one in category_runs(run)
    }
    fields = ("metrics", "metric_reasons", "intervals", "per_defect", "trivial")
    categories = [one.replaced(**{key: results[one.name][key] for key in fields}) for one in run.record.categories]
    metrics, reasons = _means({name: (its["metrics"], its["metric_reasons"]) for name, its in results.items()})
    trivial, _ = _means({name: (its["trivial"], {}) for name, its in results.items()})
    return {
        "evaluation": evaluation_record(run),
        "metrics": metrics,
        "metric_reasons": reasons,
        "intervals": {},
        "per_defect": [
            kind.replaced(defect=f"{name}/{kind.defect}") for name, its in results.items() for kind in its["per_defect"]
        ],
        "trivial": trivial,
        "categories": categories,
    }


def _means(
    categories: Mapping[str, tuple[Mapping[str, float | None], Mapping[str, str | None]]],
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Return the mean of each metric over all categories, and the reasons of those that some category has not.

    A mean over some of them would be of other images than its neighbours in a table, so there is none then.
    """
    means: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for metric in dict.fromkeys(metric for metrics, _ in categories.values() for metric in metrics):
        values = {name: metrics.get(metric) for name, (metrics, _) in categories.items()}
        lacking = [name for name, value in values.items() if value is None]
        known = [value for value in values.values() if value is not None]
        means[metric] = None if lacking else sum(known) / len(known)
        if lacking:
            why = categories[lacking[0]][1].get(metric)
            reasons[metric] = f"no mean over all categories, for {', '.join(lacking)} has none ({why})"
    return means, reasons


def _intervals(
    run: Run,
    rows: Sequence[ScoreRow],
    images: PixelImages | None,
    metrics: Mapping[str, float | None],
    image_threshold: float | None,
    pixel_threshold: float | None,
) -> dict[str, IntervalRecord | None]:
    """Return the interval of every metric that has a value; `method` gives the reason for a missing interval."""
    scores, labels = columns(rows)
    groups = row_groups(run.record, rows)
    found: dict[str, IntervalRecord | None] = {
        **interval_records("image", image_intervals(scores, labels, image_threshold, groups))
    }
    if images is None:
        found |= {name: old for name, old in run.record.intervals.items() if name.startswith("pixel")}
    elif metrics.get("pixel_AUROC") is not None:
        found |= interval_records("pixel", pixel_intervals(images, labels, pixel_threshold, groups))
    return {name: interval for name, interval in found.items() if metrics.get(name) is not None}


def relabel_scores(run: Run, thresholds: Thresholds | None = None) -> None:
    """Rewrite scores.csv with every image's decision at the image threshold, its category's where there are several.

    The thresholds are the recorded ones, or others.
    """
    by_category = image_thresholds(thresholds or run.record.thresholds)
    run.write_scores([with_decision(row, by_category.get(row.category)) for row in run.scores()])


def with_decision(row: ScoreRow, threshold: float | None) -> ScoreRow:
    """Return a copy of the row with its predicted label at `threshold`."""
    return replace(row, pred_label=decision(row.score, threshold))


def columns(rows: Sequence[ScoreRow]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows' scores (n,) float64 and labels (n,) int64."""
    return np.array([row.score for row in rows], dtype=np.float64), np.array(
        [row.label for row in rows], dtype=np.int64
    )
