"""What the validation images of a run have chosen besides thresholds, and which of them chose nothing.

A promise on new images (conformal's false-alarm rate, the recall bound) holds only where the images that it was
calculated on chose nothing else: the best of many epochs or configurations is best partly by luck on these very images.
`data.calibration_share` holds back good images for such a promise.
"""

from collections.abc import Sequence
from dataclasses import replace

from defectlab.evaluation.threshold import Threshold
from defectlab.results.run.category_run import category_runs
from defectlab.results.run.record import RunRecord
from defectlab.results.run.result_records import Thresholds
from defectlab.results.run.run import Run
from defectlab_runtime.scores import ScoreRow

PROMISES = {"conformal": 0, "recall": 1}  # rule -> label of the images whose scores its promise is calculated on
_GOOD_ONLY = "val_good_loss"  # a monitored loss that anomalous images have no part in
_SCALED_MAPS = "efficient_ad"  # measures the range of its maps on good validation images


def choosing_rows(record: RunRecord, rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Return validation rows in their order, with label -1 (left out) for those held back for calibration."""
    held_back = frozenset(record.dataset.calibration)
    return [replace(row, label=-1) if row.image_path in held_back else row for row in rows]


def rows_for_rule(record: RunRecord, rows: Sequence[ScoreRow], rule: str) -> list[ScoreRow]:
    """Return validation rows in their order, with label -1 for those that a threshold rule must not use.

    conformal uses the good images held back for it, if any were; every other rule uses the others.
    """
    held_back = frozenset(record.dataset.calibration)
    if rule != "conformal" or not held_back:
        return choosing_rows(record, rows)
    return [replace(row, label=-1) if row.label == 0 and row.image_path not in held_back else row for row in rows]


def choices_of(record: RunRecord, label: int) -> list[str]:
    """Return what the validation images of a label (0 good, 1 anomalous) chose besides thresholds, in words."""
    found = []
    monitor, sweep = record.monitor, record.sweep_facts
    if monitor is not None and monitor.decided_epoch and (label == 0 or monitor.metric != _GOOD_ONLY):
        found.append(f"the epoch, by {monitor.metric} of {len(monitor.values)}")
    refit = sweep.refit
    if refit is not None and refit.split == "validation" and (refit.among or 0) > 1:
        found.append(f"this configuration, by {refit.metric} of {refit.among}")
    elif sweep.objective:
        found.append(f"configurations, in a search by {sweep.objective}")
    if label == 0 and record.experiment.model_name == _SCALED_MAPS:
        found.append("the scale of the maps")
    return found


def checked_promise(record: RunRecord, found: Threshold) -> Threshold:
    """Return a threshold chosen on validation rows, with its promise withdrawn where these chose anything else."""
    label = PROMISES.get(found.rule)
    if label is None or found.promise is None or found.withdrawn is not None:
        return found
    why = _lost_promise(record, label)
    return found if why is None else replace(found, withdrawn=why)


def withdraw_recorded(run: Run) -> None:
    """Withdraw the promises of a run's recorded thresholds whose images have chosen something since."""
    categories = {str(one.category): _withdrawn(one) for one in category_runs(run)}
    thresholds = _withdrawn(run)
    if categories:
        thresholds = thresholds.replaced(categories=categories)
    if thresholds != run.record.thresholds:
        run.update(thresholds=thresholds)


def _withdrawn(run: Run) -> Thresholds:
    """Return a run's recorded thresholds, with the promises withdrawn that do not hold any more."""
    changed = {}
    for level, one in run.record.thresholds.by_level.items():
        label = PROMISES.get(one.rule)
        why = None if label is None or one.withdrawn is not None else _lost_promise(run.record, label)
        if why is not None:
            changed[level] = one.replaced(
                withdrawn=why, reason=f"{one.reason}; this promise no longer holds, because {why}"
            )
    return run.record.thresholds.replaced(**changed)


def _lost_promise(record: RunRecord, label: int) -> str | None:
    """Return why a promise on the scores of validation images of a label does not hold; None if it holds."""
    choices = [] if label == 0 and record.dataset.calibration else choices_of(record, label)
    if not choices:
        return None
    fix = (
        "train with data.calibration_share (such as 0.5), which holds good images back for this"
        if label == 0
        else "train without a monitor, or validate on other images"
    )
    kind = ("good", "anomalous")[label]
    return f"the same {kind} images chose {' and '.join(choices)}; {fix}"
