"""Another threshold for a run wherever it is stored: record, scores, checkpoint, pictures, reports and workbook."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from defectlab.evaluation.threshold import RuleOptions
from defectlab.results.rethreshold import restore_thresholds, set_threshold
from defectlab.results.run.location import CHECKPOINT
from defectlab.results.run.result_records import Thresholds
from defectlab.results.run.run import CONVERTED, Run
from defectlab.results.workbook import update_workbook
from defectlab.utils import paths
from defectlab.visualization.renewal import renew_visuals

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ThresholdChange:
    """The thresholds that a run has now, and the rows of the workbook with it; none for a run that is not tested."""

    thresholds: Thresholds
    rows: Sequence[Mapping[str, Any]] = ()


def apply_threshold(
    run: Run,
    rule: str,
    options: RuleOptions,
    levels: Sequence[str] = ("image",),
    category: str | None = None,
) -> ThresholdChange:
    """Choose a run's thresholds by another rule and write them everywhere.

    The record gets the thresholds, the labels and the metrics at them, and keeps the thresholds before
    (`undo_threshold`); the run's own checkpoint gets its copy, so that it decides alike wherever it is copied to;
    pictures and reports are made again, or marked where they cannot be; the workbook gets the row. Record and
    checkpoint change together or, on an error, not at all.

    Raises:
        InputError, OptionError: See `defectlab.results.rethreshold.set_threshold`.
        OSError, RuntimeError: The checkpoint cannot be written.
    """
    set_threshold(run, rule, options, levels, lambda thresholds: _checkpoints_with(run, thresholds), category)
    return renew(run)


def undo_threshold(run: Run) -> ThresholdChange:
    """Take the last `apply_threshold` back, everywhere.

    Raises:
        InputError: None was set since the training.
        OSError, RuntimeError: The checkpoint cannot be written.
    """
    restore_thresholds(run, lambda thresholds: _checkpoints_with(run, thresholds))
    return renew(run)


def renew(run: Run) -> ThresholdChange:
    """Bring checkpoint, pictures, reports and workbook to the thresholds on record."""
    thresholds = run.record.thresholds
    with _checkpoints_with(run, thresholds):
        pass
    if run.status != "finished":
        return ThresholdChange(thresholds)
    for file in renew_visuals(run):
        logger.info("Made again: %s", paths.relative(file))
    copies = [f"{name} ({copy.where})" for name, copy in run.record.trackers.items() if copy.where]
    if copies:
        logger.warning("Copies of this run keep the thresholds of before: %s", ", ".join(copies))
    return ThresholdChange(thresholds, update_workbook(run).rows)


@contextmanager
def _checkpoints_with(run: Run, thresholds: Thresholds) -> Iterator[None]:
    """Give the checkpoints in the run's folder these thresholds, if the block ends without an error."""
    checkpoints = [run.folder / name for name in (CHECKPOINT, CONVERTED) if (run.folder / name).is_file()]
    with ExitStack() as stack:
        if checkpoints:
            # torch takes longer than all else here, and what cannot be done is known by now
            from defectlab.models.checkpoint_thresholds import rewritten

            for path in checkpoints:
                stack.enter_context(rewritten(path, thresholds))
        yield
