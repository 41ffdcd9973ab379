"""Data for a run's report, computed from its scores: curves, counts by kind of defect, and failure cases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectlab.evaluation.intervals import Interval, auroc_interval
from defectlab.evaluation.metrics import SortedScores, auroc, sort_scores
from defectlab_runtime.scores import ScoreRow

MAX_POINTS = 400  # points of a drawn curve; more would not be visible


@dataclass(frozen=True)
class Kind:
    """Results of one kind of test image; `flagged` counts images above the threshold (None without a threshold).

    `auroc` is computed against all good test images, and is None for kinds that are not anomalous.
    """

    defect: str
    label: int
    count: int
    flagged: int | None
    mean_score: float
    lowest: float
    highest: float
    auroc: float | None
    interval: Interval | None


def by_kind(rows: Sequence[ScoreRow], threshold: float | None, groups: Sequence[str] | None = None) -> list[Kind]:
    """Return the results of each kind of test image, in ascending order of mean score.

    `groups` (n,) names the group of each image; the intervals then treat groups, not images, as independent.
    """
    return kinds_of_columns(
        [row.defect for row in rows],
        np.array([row.label for row in rows], dtype=np.int64),
        np.array([row.score for row in rows], dtype=np.float64),
        threshold,
        groups,
    )


def kinds_of_columns(
    defects: Sequence[str],
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    threshold: float | None,
    groups: Sequence[str] | None = None,
) -> list[Kind]:
    """Return the results of `by_kind` from columns of defects, labels, scores and groups (n,)."""
    kinds = []
    names, members = np.array(defects, dtype=np.str_), None if groups is None else np.array(groups, dtype=np.str_)
    for label, defect in sorted(set(zip(labels.tolist(), defects, strict=True))):
        own = (labels == label) & (names == defect)
        its = scores[own]
        flagged = None if threshold is None else int((~(its <= threshold)).sum())  # NaN counts as flagged
        area, interval = None, None
        if label == 1:
            used = own | (labels == 0)
            area = auroc(sort_scores(scores[used], labels[used])).value
            interval = auroc_interval(scores[used], labels[used], groups=None if members is None else members[used])
        ends = float(its.min()), float(its.max())
        kinds.append(Kind(defect, label, its.size, flagged, float(its.mean()), *ends, area, interval))
    return sorted(kinds, key=lambda kind: kind.mean_score)


def roc_points(curve: SortedScores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ROC curve's false-positive rates and recalls, rising from (0, 0) to (1, 1), thinned for drawing."""
    cuts = _cuts(curve)
    fpr = 1 - np.searchsorted(curve.negatives, cuts, "left") / curve.negatives.size
    tpr = 1 - np.searchsorted(curve.positives, cuts, "left") / curve.positives.size
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])


def pr_points(curve: SortedScores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the recalls, ascending, and precisions of the precision-recall curve, thinned for drawing."""
    cuts = _cuts(curve)
    tp = curve.positives.size - np.searchsorted(curve.positives, cuts, "left")
    fp = curve.negatives.size - np.searchsorted(curve.negatives, cuts, "left")
    return tp / curve.positives.size, tp / np.maximum(tp + fp, 1)


def _cuts(curve: SortedScores) -> NDArray[np.floating]:
    """Return distinct scores, descending: all of them, or for many scores a sample dense at both classes' ends."""
    if curve.positives.size + curve.negatives.size <= 4 * MAX_POINTS:
        return np.unique(np.concatenate([curve.positives, curve.negatives]))[::-1]
    shares = np.concatenate([np.linspace(0, 1, MAX_POINTS), 1 - np.geomspace(1e-6, 1, MAX_POINTS)])
    places = [part[np.round(shares * (part.size - 1)).astype(int)] for part in (curve.positives, curve.negatives)]
    return np.unique(np.concatenate([*places, curve.positives[:1], curve.negatives[:1]]))[::-1]


def by_score(rows: Sequence[ScoreRow]) -> list[int]:
    """Return the positions of rows in ascending order of score, with NaN scores last."""
    return sorted(range(len(rows)), key=lambda index: (math.isnan(rows[index].score), rows[index].score))


def where_it_fails(rows: Sequence[ScoreRow], threshold: float | None, count: int = 6) -> dict[str, list[int]]:
    """Return the positions in `rows` of the highest good, lowest anomalous and closest-to-threshold scores."""
    order = by_score(rows)
    found = {
        "Good images that score highest": [index for index in reversed(order) if rows[index].label == 0][:count],
        "Defects that score lowest": [index for index in order if rows[index].label == 1][:count],
    }
    if threshold is not None:
        finite = [index for index in order if math.isfinite(rows[index].score)]
        close = sorted(finite, key=lambda index: abs(rows[index].score - threshold))
        found["Closest to the threshold"] = close[:count]
    return {title: indices for title, indices in found.items() if indices}
