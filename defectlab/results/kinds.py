"""How a run does on each kind of defect: from its record, or from its scores where the record does not say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from defectlab.results.facts import kinds_of_columns
from defectlab.results.record import Run
from defectlab.results.ties import TestScores


@dataclass(frozen=True)
class KindResult:
    """One kind of test image: how many, how many above the threshold (None without one), AUROCs against the good."""

    defect: str
    label: int
    count: int
    flagged: int | None
    image_auroc: float | None
    pixel_auroc: float | None


def kinds_of(run: Run, scores: TestScores | None) -> list[KindResult]:
    """Return the kinds of a run's test images, the good first; none where neither record nor scores tell."""
    recorded = run.record.get("per_defect")
    found = [_recorded(one) for one in recorded] if recorded else _computed(run, scores)
    return sorted(found, key=lambda kind: (kind.label, kind.defect))


def _recorded(kind: Mapping[str, Any]) -> KindResult:
    return KindResult(
        str(kind["defect"]),
        int(kind["label"]),
        int(kind["count"]),
        kind.get("flagged"),
        kind.get("image_AUROC"),
        kind.get("pixel_AUROC"),
    )


def _computed(run: Run, scores: TestScores | None) -> list[KindResult]:
    if scores is None:
        return []
    threshold = run.record["thresholds"]["image"]["value"]
    kinds = kinds_of_columns(scores.defects, scores.labels, scores.scores, threshold, scores.parts)
    return [KindResult(kind.defect, kind.label, kind.count, kind.flagged, kind.auroc, None) for kind in kinds]
