"""From raw scores and maps to thresholds and metrics. Needs a record, no model."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from defectlab.evaluation.metrics import evaluate
from defectlab.evaluation.thresholds import Threshold, choose_image_threshold, choose_pixel_threshold
from defectlab.results.record import Run, ScoreRow


def choose_thresholds(
    rows: Sequence[ScoreRow], maps: np.ndarray | None, masks: np.ndarray | None
) -> tuple[Threshold, Threshold]:
    """Choose image and pixel threshold from one split's rows, maps (n, H, W) and masks (n, H, W)."""
    scores, labels = _columns(rows)
    return choose_image_threshold(scores, labels), choose_pixel_threshold(maps, masks, labels)


def evaluate_run(run: Run) -> dict[str, Any]:
    """Compute the test metrics at the record's own thresholds, and label every row of scores.csv.

    Returns:
        What run.json holds: `metrics` by name (None where one cannot be computed) and `metric_reasons` for those.
    """
    thresholds = run.record["thresholds"]
    image, pixel = thresholds["image"]["value"], thresholds["pixel"]["value"]
    rows = run.scores()
    run.write_scores([labelled(row, image) for row in rows])
    scores, labels = _columns([row for row in rows if row.split == "test"])
    results = evaluate(
        scores, labels, run.maps("test"), run.masks("test"), image_threshold=image, pixel_threshold=pixel
    )
    return {
        "metrics": {name: metric.value for name, metric in results.items()},
        "metric_reasons": {name: metric.reason for name, metric in results.items() if metric.value is None},
    }


def threshold_record(threshold: Threshold, split: str) -> dict[str, Any]:
    """Return a threshold as run.json holds it; `oracle` says that the test images chose it."""
    return {**asdict(threshold), "source": split, "oracle": split == "test"}


def labelled(row: ScoreRow, threshold: float | None) -> ScoreRow:
    """Return the row with its decision at `threshold`."""
    decision = -1 if threshold is None else int(row.score > threshold)
    return ScoreRow(row.image_path, row.split, row.defect, row.label, row.score, decision)


def _columns(rows: Sequence[ScoreRow]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row.score for row in rows], dtype=np.float64), np.array(
        [row.label for row in rows], dtype=np.int64
    )
