"""Scores, thresholds, metrics and intervals of groups, which are objects shown by several images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from defectlab.data.manifest.groups import groups_by
from defectlab.evaluation.bootstrap import image_intervals
from defectlab.evaluation.metrics import prevalence, trivial_f1
from defectlab.evaluation.suite import evaluate
from defectlab.evaluation.threshold import Threshold
from defectlab.evaluation.threshold_rules import choose_image_threshold
from defectlab.results.calibration import rows_for_rule
from defectlab.results.record_parts import interval_records, threshold_record
from defectlab.results.run.record import RunRecord
from defectlab.results.run.result_records import GroupsRecord, GroupThresholds, IntervalRecord, ThresholdRecord
from defectlab.results.run.run import Run
from defectlab_runtime.scores import ScoreRow

Chooser = Callable[[NDArray[np.float64], NDArray[np.int64]], Threshold]
RULES_WITHOUT_OPTIONS = ("f1", "good_max", "none")  # threshold rules without options, which training uses


def row_groups(record: RunRecord, rows: Sequence[ScoreRow]) -> list[str] | None:
    """Return the group of each row by the run's pattern `data.group`; None for a run without a pattern."""
    return groups_of_paths(record, [row.image_path for row in rows])


def groups_of_paths(record: RunRecord, paths: Sequence[str]) -> list[str] | None:
    """Return the group of each image path of scores.csv by `data.group`; None for a run without it."""
    protocol = record.dataset.protocol
    if protocol.group is None:
        return None
    below = paths_below_root(record, paths)
    groups = groups_by(below, protocol.group, protocol.copies)
    return [groups[path] for path in below]


def paths_below_root(record: RunRecord, paths: Sequence[str]) -> list[str]:
    """Return a run's image paths relative to its dataset's root, so that they match across dataset locations."""
    root = record.dataset.root or "."  # written like the paths, so no file access is needed
    places = [(path, PurePosixPath(path)) for path in paths]
    return [place.relative_to(root).as_posix() if place.is_relative_to(root) else path for path, place in places]


def group_columns(rows: Sequence[ScoreRow], groups: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the groups' scores (g,), each the maximum over its images, and labels (g,), sorted by group name.

    A group is anomalous (1) if any of its images is, good (0) if all its labelled images are, else unknown (-1).
    """
    scores: dict[str, float] = {}
    labels: dict[str, int] = {}
    for row, group in zip(rows, groups, strict=True):
        scores[group] = float(np.maximum(scores.get(group, -np.inf), row.score))  # NaN stays NaN
        labels[group] = max(labels.get(group, -1), row.label)
    names = sorted(scores)
    return np.array([scores[name] for name in names]), np.array([labels[name] for name in names], dtype=np.int64)


def choose_group_threshold(
    run: Run, choose: Chooser = choose_image_threshold, rule: str = "f1"
) -> ThresholdRecord | None:
    """Choose the group threshold on the run's validation rows; return None for a run without `data.group`.

    `rule` says which rows `choose` is given; see `rows_for_rule`.
    """
    rows = rows_for_rule(run.record, run.scores("validation"), rule)
    groups = row_groups(run.record, rows)
    if groups is None:
        return None
    chosen = choose(*group_columns(rows, groups))
    return threshold_record(chosen, run.record.dataset.protocol.threshold_source)


def evaluate_groups(
    run: Run, rows: Sequence[ScoreRow], image_rule: str, threshold: ThresholdRecord | None = None
) -> GroupsRecord | None:
    """Compute the group results over the test rows; return None for a run without `data.group`.

    Args:
        run: The run, for its pattern, its validation rows and the group threshold it may have.
        rows: The test rows.
        image_rule: The rule of the image threshold, which the groups' follows.
        threshold: A group threshold just chosen; else the recorded one of the same rule, else one by the default rule.
    """
    groups = row_groups(run.record, rows)
    if groups is None:
        return None
    if threshold is None and image_rule not in RULES_WITHOUT_OPTIONS and run.record.groups:
        threshold = run.record.groups.thresholds.group
    threshold = threshold or choose_group_threshold(run)
    assert threshold is not None
    scores, labels = group_columns(rows, groups)
    found = evaluate(scores, labels, image_threshold=threshold.value, pixel_threshold=None)
    named = {f"part_{name[6:]}": metric for name, metric in found.items() if name.startswith("image_")}
    intervals = _intervals(scores, labels, threshold.value)
    return GroupsRecord(
        pattern=str(run.record.dataset.protocol.group),
        count=int(scores.size),
        counts={"good": int((labels == 0).sum()), "anomalous": int((labels == 1).sum())},
        images=len(rows),
        score="the highest of its images",
        metrics={name: metric.value for name, metric in named.items()},
        metric_reasons={name: metric.reason for name, metric in named.items() if metric.value is None},
        intervals={name: interval for name, interval in intervals.items() if named[name].value is not None},
        trivial={"part_F1Score": trivial_f1(labels), "part_AUPR": prevalence(labels)},
        thresholds=GroupThresholds(group=threshold),
    )


def _intervals(
    scores: NDArray[np.float64], labels: NDArray[np.int64], threshold: float | None
) -> dict[str, IntervalRecord]:
    """Return the intervals of the group metrics, computed as for images with each group as one sample."""
    found = image_intervals(scores, labels, threshold)
    named = {name: replace(one, method=one.method.replace("image", "part")) for name, one in found.items()}
    return interval_records("part", named)
