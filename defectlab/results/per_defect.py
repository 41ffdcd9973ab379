"""Metrics of each kind of defect, measured against all good test images."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from defectlab.evaluation.metrics import aupr, f1_at, sort_scores
from defectlab.evaluation.pixel.maps_and_masks import ImageSubset, PixelImages
from defectlab.evaluation.pixel.metrics import pixel_metrics
from defectlab.results.curves import Kind, by_kind
from defectlab.results.run.result_records import DefectRecord
from defectlab_runtime.scores import ScoreRow

PIXEL = ("pixel_AUROC", "pixel_AUPRO", "pixel_AUPR", "pixel_F1Score")


def per_defect(
    rows: Sequence[ScoreRow],
    images: PixelImages | None,
    image_threshold: float | None,
    pixel_threshold: float | None,
    earlier: Sequence[DefectRecord] = (),
    groups: Sequence[str] | None = None,
) -> list[DefectRecord]:
    """Compute the results of each kind of test image, with good images first.

    Metrics of a kind of defect are of its images and all good ones; the good kind has none. A metric without a value is
    None. Images of unknown label have no entry.

    Args:
        rows: Of the test, in the order of the images.
        images: Their maps and masks; None where there are none.
        image_threshold: Above it an image is flagged; None where there is no threshold.
        pixel_threshold: Above it a pixel is called a defect.
        earlier: The record's entries from when maps were there: without maps, their pixel metrics stay.
        groups: The group of each image, where there are groups: these are independent, not images, for the intervals.
    """
    labels = np.array([row.label for row in rows], dtype=np.int64)
    scores = np.array([row.score for row in rows], dtype=np.float64)
    names = np.array([row.defect for row in rows], dtype=np.str_)
    kinds = [kind for kind in by_kind(rows, image_threshold, groups) if kind.label >= 0]
    entries = []
    for kind in sorted(kinds, key=lambda kind: (kind.label, kind.defect)):
        entry = _entry(kind)
        if kind.label == 1:
            used = (names == kind.defect) & (labels == 1) | (labels == 0)
            entry |= {
                "image_AUPR": aupr(sort_scores(scores[used], labels[used])).value,
                "image_F1Score": f1_at(sort_scores(scores[used], labels[used]), image_threshold).value,
            }
            if images is not None:
                chosen = ImageSubset(images, np.flatnonzero(used).tolist())
                found = pixel_metrics(chosen, threshold=pixel_threshold)
                entry |= {name: found[name.removeprefix("pixel_")].value for name in PIXEL}
            else:
                before = next((old for old in earlier if (old.label, old.defect) == (1, kind.defect)), None)
                entry |= {name: before and before.to_dict().get(name) for name in PIXEL}
        entries.append(DefectRecord.from_dict(entry))
    return entries


def _entry(kind: Kind) -> dict[str, Any]:
    interval = kind.interval
    return {
        "defect": kind.defect,
        "label": kind.label,
        "count": kind.count,
        "flagged": kind.flagged,
        "mean_score": kind.mean_score if np.isfinite(kind.mean_score) else None,  # JSON has no NaN
        "image_AUROC": kind.auroc,
        **dict.fromkeys(("image_AUPR", "image_F1Score")),
        "interval": None if interval is None or interval.low is None else asdict(interval),
        **dict.fromkeys(PIXEL),
    }
