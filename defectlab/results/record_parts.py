"""Computed thresholds and intervals as parts of a record."""

from collections.abc import Mapping

from defectlab.evaluation.intervals import Interval, intervals_record
from defectlab.evaluation.threshold import Threshold
from defectlab.results.run.result_records import IntervalRecord, ThresholdRecord, Thresholds


def threshold_record(threshold: Threshold, split: str) -> ThresholdRecord:
    """Return a threshold that the images of a split chose, or the user; `oracle` says that it was the test images."""
    source = "the user" if threshold.rule == "manual" else split
    return ThresholdRecord(
        value=threshold.value, rule=threshold.rule, source=source, reason=threshold.reason, oracle=source == "test"
    )


def no_thresholds(reason: str) -> Thresholds:
    """Return the thresholds of a run for which none could be chosen, and why."""
    none = threshold_record(Threshold(None, "none", "", reason), "none")
    return Thresholds(image=none, pixel=none)


def interval_records(level: str, intervals: Mapping[str, Interval]) -> dict[str, IntervalRecord]:
    """Return intervals by the full names of their metrics."""
    return {name: IntervalRecord.from_dict(one) for name, one in intervals_record(level, intervals).items()}
