"""Labels of images inferred from the names of their folders, and comparison of predictions with them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from defectlab.data.manifest.folder_names import BAD, GOOD, UNKNOWN, plain, sounds_good
from defectlab.evaluation.metrics import confusion_at, f1_at, sort_scores

logger = logging.getLogger(__name__)

CLASSES = ("good", "defect")


@dataclass(frozen=True)
class Expected:
    """Label by an image's folder: `label` 0 good, 1 anomalous, -1 unknown; `kind` good, unknown or a defect."""

    label: int
    kind: str


def expectations(files: Sequence[Path]) -> list[Expected]:
    """Infer the label of each file from its folder's name, if any of the folders is called good or bad.

    Images in `unknown` or in a folder whose name only sounds good (`normals`, `gut`), and all images where no folder is
    called good or bad (or another name of these), are unknown.
    """
    names = {plain(file.parent.name) for file in files}
    if not names & {*GOOD, *BAD}:
        return [Expected(-1, UNKNOWN)] * len(files)
    if asked := sorted(name for name in names if name not in GOOD and sounds_good(name)):
        logger.warning("Folders %s sound like good images: their images count as unknown; rename to good", asked)
    return [_expected(file.parent.name) for file in files]


def _expected(folder: str) -> Expected:
    if plain(folder) in GOOD:
        return Expected(0, "good")
    return Expected(-1, UNKNOWN) if plain(folder) == UNKNOWN or sounds_good(folder) else Expected(1, folder)


def is_correct(expected: Expected, predicted: int) -> bool | None:
    """Whether a prediction equals the expected label; None if either of them is unknown."""
    return None if -1 in (expected.label, predicted) else expected.label == predicted


def comparison(scores: np.ndarray, labels: np.ndarray, threshold: float | None) -> dict[str, Any]:
    """Return F1, overlap and confusion matrix of scores (n,) with labels (n,), without unknown ones.

    `overlapping_scores`: images whose score lies where those of both classes are, between the lowest of the defects and
    the highest of the good ones. `matrix`: rows are what was expected, columns what was predicted, good first. Where
    nothing can be compared, F1 is 0, as Quadra has it, and the matrix of zeros; where there is no defect F1 is 0 too.
    """
    known = labels >= 0
    scores, labels = scores[known], labels[known]
    matrix = [[0, 0], [0, 0]]
    f1 = 0.0
    if scores.size and threshold is not None:
        ordered = sort_scores(scores, labels)
        f1 = f1_at(ordered, threshold).value or 0.0
        counts = confusion_at(ordered, threshold)
        matrix = [[counts.tn, counts.fp], [counts.fn, counts.tp]]
    good, bad = scores[labels == 0], scores[labels == 1]
    overlapping = 0
    if good.size and bad.size:
        overlapping = int(((scores >= bad.min()) & (scores <= good.max())).sum())
    confusion = {"class_labels": list(CLASSES), "matrix": matrix}
    return {"f1_score": f1, "metrics": {"overlapping_scores": overlapping, "confusion_matrix": confusion}}
