"""What each kind of defect came to, against all good test images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from defectlab.evaluation.intervals import auroc_interval
from defectlab.evaluation.metrics import aupr, auroc, f1_at
from defectlab.evaluation.pixels import pixel_metrics
from defectlab.evaluation.sources import Chosen, PixelImages
from defectlab.results.record import ScoreRow

PIXEL = ("pixel_AUROC", "pixel_AUPRO", "pixel_AUPR", "pixel_F1Score")


def per_defect(
    rows: Sequence[ScoreRow],
    images: PixelImages | None,
    image_threshold: float | None,
    pixel_threshold: float | None,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Return one entry for each kind of test image, the good ones first, as run.json holds them.

    Metrics of a kind of defect are of its images and all good ones; the good kind has none. A metric without a value is
    None. Images of unknown label have no entry.

    Args:
        rows: Of the test, in the order of the images.
        images: Their maps and masks; None where there are none.
        image_threshold: Above it an image is flagged; None where there is no threshold.
        pixel_threshold: Above it a pixel is called a defect.
        earlier: The record's entries from when maps were there: without maps, their pixel metrics stay.
    """
    labels = np.array([row.label for row in rows], dtype=np.int64)
    scores = np.array([row.score for row in rows], dtype=np.float64)
    kinds = np.array([row.defect for row in rows], dtype=object)
    entries = []
    known = sorted({(row.label, row.defect) for row in rows if row.label >= 0})
    for label, defect in known:
        own = (labels == label) & (kinds == defect)
        mean = float(scores[own].mean())
        entry = {
            "defect": defect,
            "label": label,
            "count": int(own.sum()),
            "flagged": None if image_threshold is None else int((scores[own] > image_threshold).sum()),
            "mean_score": mean if np.isfinite(mean) else None,  # JSON has no NaN
            **dict.fromkeys(("image_AUROC", "image_AUPR", "image_F1Score", "interval", *PIXEL)),
        }
        if label == 1:
            places = np.flatnonzero(own | (labels == 0))
            entry |= _image_metrics(scores[places], labels[places], image_threshold)
            if images is not None:
                found = pixel_metrics(Chosen(images, places.tolist()), threshold=pixel_threshold)
                entry |= {name: found[name.removeprefix("pixel_")].value for name in PIXEL}
            else:
                before = next((old for old in earlier if (old["label"], old["defect"]) == (label, defect)), {})
                entry |= {name: before.get(name) for name in PIXEL}
        entries.append(entry)
    return entries


def _image_metrics(scores: np.ndarray, labels: np.ndarray, threshold: float | None) -> dict[str, Any]:
    interval = auroc_interval(scores, labels)
    return {
        "image_AUROC": auroc(scores, labels).value,
        "image_AUPR": aupr(scores, labels).value,
        "image_F1Score": f1_at(scores, labels, threshold).value,
        "interval": None if interval.low is None else asdict(interval),
    }
