"""Parts with several photographs: one score for each, the highest of its photographs, with metrics and intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectlab.data.manifest.groups import group_of
from defectlab.evaluation.bootstrap import image_intervals
from defectlab.evaluation.intervals import intervals_record
from defectlab.evaluation.metrics import prevalence, trivial_f1
from defectlab.evaluation.suite import evaluate
from defectlab.evaluation.threshold_rules import choose_image_threshold
from defectlab.evaluation.thresholds import Threshold
from defectlab.results.run.run import Run, RunRecord
from defectlab.results.run.scores import ScoreRow

Chooser = Callable[[NDArray[np.float64], NDArray[np.int64]], Threshold]
BY_THEMSELVES = ("f1", "good_max", "none")  # rules that need no options: what a run is trained with


def row_parts(record: RunRecord, rows: Sequence[ScoreRow]) -> list[str] | None:
    """Return the part of each row, as the run's `data.group` names it; None for a run without it."""
    return parts_of_paths(record, [row.image_path for row in rows])


def parts_of_paths(record: RunRecord, paths: Sequence[str]) -> list[str] | None:
    """Return the part that each image shows, by its path as scores.csv has it; None for a run without `data.group`."""
    pattern = record.dataset.protocol.group
    return None if pattern is None else [group_of(path, pattern) for path in paths_below_root(record, paths)]


def paths_below_root(record: RunRecord, paths: Sequence[str]) -> list[str]:
    """Return a run's image paths relative to its dataset's root: equal for equal images, wherever the dataset lies."""
    return [_below(path, record.dataset.root or ".") for path in paths]


def _below(path: str, root: str) -> str:
    """Return a record's path relative to the dataset's root; both are written alike, so no disk is asked."""
    place = PurePosixPath(path)
    return place.relative_to(root).as_posix() if place.is_relative_to(root) else path


def part_columns(rows: Sequence[ScoreRow], parts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the parts' scores (p,), each the highest of its images, and labels (p,), in the order of their names.

    A part is anomalous (1) where any of its images is, good (0) where its known ones all are, else unknown (-1).
    """
    scores: dict[str, float] = {}
    labels: dict[str, int] = {}
    for row, part in zip(rows, parts, strict=True):
        scores[part] = float(np.maximum(scores.get(part, -np.inf), row.score))  # NaN stays NaN
        labels[part] = max(labels.get(part, -1), row.label)
    names = sorted(scores)
    return np.array([scores[name] for name in names]), np.array([labels[name] for name in names], dtype=np.int64)


def choose_part_threshold(run: Run, choose: Chooser = choose_image_threshold) -> dict[str, Any] | None:
    """Return the threshold of validation parts as run.json holds it; None for a run without `data.group`."""
    rows = run.scores("validation")
    parts = row_parts(run.record, rows)
    if parts is None:
        return None
    chosen = choose(*part_columns(rows, parts))
    source = "test" if run.record.dataset.protocol.validation_is_test else "validation"
    source = "the user" if chosen.rule == "manual" else source
    return {**asdict(chosen), "source": source, "oracle": source == "test"}


def evaluate_parts(
    run: Run, rows: Sequence[ScoreRow], image_rule: str, threshold: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Return what run.json holds under `parts` for the test rows; None for a run without `data.group`.

    Args:
        run: The run, for its pattern, its validation rows and the part threshold it may have.
        rows: The test rows.
        image_rule: The rule of the image threshold, which the parts' follows.
        threshold: A part threshold just chosen; else the recorded one of the same rule, else one by the default rule.
    """
    parts = row_parts(run.record, rows)
    if parts is None:
        return None
    if threshold is None and image_rule not in BY_THEMSELVES:
        recorded = run.record.groups
        threshold = recorded.thresholds.group.to_dict() if recorded else None
    if threshold is None:
        threshold = choose_part_threshold(run)
    assert threshold is not None
    scores, labels = part_columns(rows, parts)
    value = threshold["value"]
    found = evaluate(scores, labels, image_threshold=value, pixel_threshold=None)
    named = {f"part_{name[6:]}": metric for name, metric in found.items() if name.startswith("image_")}
    return {
        "group": run.record.dataset.protocol.group,
        "count": int(scores.size),
        "counts": {"good": int((labels == 0).sum()), "anomalous": int((labels == 1).sum())},
        "images": len(rows),
        "score": "the highest of its images",
        "metrics": {name: metric.value for name, metric in named.items()},
        "metric_reasons": {name: metric.reason for name, metric in named.items() if metric.value is None},
        "intervals": {
            name: interval
            for name, interval in _intervals(scores, labels, value).items()
            if named[name].value is not None
        },
        "trivial": {"part_F1Score": trivial_f1(labels), "part_AUPR": prevalence(labels)},
        "thresholds": {"part": dict(threshold)},
    }


def _intervals(
    scores: NDArray[np.float64], labels: NDArray[np.int64], threshold: float | None
) -> dict[str, dict[str, float | str | None]]:
    """Parts are independent of each other: intervals as over images, a part in an image's place."""
    found = image_intervals(scores, labels, threshold)
    named = {name: replace(one, method=one.method.replace("image", "part")) for name, one in found.items()}
    return intervals_record("part", named)
