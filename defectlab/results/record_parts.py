"""Conversion of computed thresholds and intervals to parts of a run's record."""

from collections.abc import Mapping

from defectlab.evaluation.intervals import Interval, intervals_record
from defectlab.evaluation.threshold import Threshold
from defectlab.results.run.result_records import IntervalRecord, ThresholdRecord, Thresholds


def threshold_record(threshold: Threshold, split: str) -> ThresholdRecord:
    """Return the record of a threshold and the source that it was chosen from; `oracle` marks the test images."""
    source = "the user" if threshold.rule == "manual" else split
    return ThresholdRecord(
        value=threshold.value,
        rule=threshold.rule,
        source=source,
        reason=threshold.text,
        oracle=source == "test",
        withdrawn=threshold.withdrawn,
    )


def no_thresholds(reason: str) -> Thresholds:
    """Return the threshold records of a run for which no thresholds could be chosen, with the reason."""
    none = threshold_record(Threshold(None, "none", "", reason), "none")
    return Thresholds(image=none, pixel=none)


def thresholds_by_category(categories: Mapping[str, Thresholds], source: str) -> Thresholds:
    """Return the threshold records of a run that serves several categories: each one's own, and none for all.

    `source` is the split that they were chosen on. The rule is named where all share it.
    """

    def together(level: str) -> ThresholdRecord:
        found = [one.by_level[level] for one in categories.values()]
        rules = {one.rule for one in found}
        return ThresholdRecord(
            value=None,
            rule=rules.pop() if len(rules) == 1 else "by category",
            source=source,
            reason=f"each of the {len(categories)} categories has its own",
            oracle=any(one.oracle for one in found),
        )

    return Thresholds(image=together("image"), pixel=together("pixel"), categories=dict(categories))


def interval_records(level: str, intervals: Mapping[str, Interval]) -> dict[str, IntervalRecord]:
    """Return interval records keyed by full metric name."""
    return {name: IntervalRecord.from_dict(one) for name, one in intervals_record(level, intervals).items()}
