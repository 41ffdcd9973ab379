"""Another threshold for a finished run: from its record alone, without training and without its model."""

from collections.abc import Sequence

import numpy as np

from defectlab.errors import InputError, OptionError
from defectlab.evaluation.rules import RuleOptions, choose
from defectlab.evaluation.thresholds import Threshold
from defectlab.results.evaluate import evaluate_run, threshold_record
from defectlab.results.record import Run, ScoreRow

LEVELS = ("image", "pixel")
GOOD_RULES = ("good_max", "conformal", "quantile")


def set_threshold(run: Run, rule: str, options: RuleOptions, levels: Sequence[str] = LEVELS) -> dict[str, Threshold]:
    """Choose new thresholds on the run's validation images, decide every image anew and recompute the metrics.

    At pixel level a rule of held-out good images (good_max, quantile, conformal) takes each good image's highest pixel:
    the false-alarm rate is of images with any pixel flagged. The other rules take pixels, by their masks.

    Raises:
        InputError: The run has no validation scores.
        OptionError: The rule cannot work on these images; nothing is changed then.
    """
    unknown = [level for level in levels if level not in LEVELS]
    if unknown or not levels:
        raise OptionError(f"levels must be of {', '.join(LEVELS)}, got {list(levels)}.")
    rows = run.scores("validation")
    if not rows and rule != "manual":
        raise InputError(
            f"{run.folder} has no validation images to choose a threshold on. Rule manual needs none: --rule manual "
            "--value SCORE."
        )
    source = run.record["thresholds"].get("image", {}).get("source") or "validation"
    source = "test" if source == "test" else "validation"
    chosen: dict[str, Threshold] = {}
    for level in levels:
        scores, labels = _image_scores(rows) if level == "image" else _pixel_scores(run, rows, rule)
        chosen[level] = choose(rule, scores, labels, options, source)
    records = {
        level: threshold_record(threshold, "the user" if rule == "manual" else source)
        for level, threshold in chosen.items()
    }
    run.update(thresholds={**run.record["thresholds"], **records})
    if run.status == "finished":
        run.update(**evaluate_run(run))
    return chosen


def _image_scores(rows: Sequence[ScoreRow]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row.score for row in rows], dtype=np.float64), np.array([row.label for row in rows], dtype=int)


def _pixel_scores(run: Run, rows: Sequence[ScoreRow], rule: str) -> tuple[np.ndarray, np.ndarray]:
    if rule == "manual":
        return np.empty(0), np.empty(0, dtype=int)
    maps, masks = run.maps("validation"), run.masks("validation")
    if maps is None:
        raise InputError(f"{run.folder} kept no validation maps: choose the image threshold alone (--level image).")
    labels = np.array([row.label for row in rows], dtype=int)
    if rule in GOOD_RULES:
        return maps[labels == 0].reshape(int((labels == 0).sum()), -1).max(axis=1, initial=-np.inf), labels[labels == 0]
    if masks is None:
        good = maps[labels == 0]
        return good.ravel(), np.zeros(good.size, dtype=int)
    known = labels >= 0
    return maps[known].ravel(), masks[known].ravel().astype(int)
