"""Comparison of threshold rules on a run's validation images; writes nothing and uses no test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from defectlab.evaluation.threshold import RuleOptions
from defectlab.results.evaluate import columns
from defectlab.results.rethreshold import image_threshold
from defectlab.results.run.category_run import one_dataset
from defectlab.results.run.run import Run
from defectlab.visualization.charts import cuts_chart
from defectlab_runtime.errors import InputError, OptionError


@dataclass(frozen=True)
class RuleOutcome:
    """A rule's image threshold (None if there is none), its wrong decisions on validation images, and the reason."""

    rule: str
    threshold: float | None
    false_alarms: int | None
    misses: int | None
    reason: str


def compare_rules(run: Run, rules: Mapping[str, RuleOptions]) -> list[RuleOutcome]:
    """Choose an image threshold by each rule from a run's validation images.

    Raises:
        InputError: The run has no validation images, or serves several categories.
    """
    one_dataset(run, "a comparison of rules")
    rows = run.scores("validation")
    scores, labels = columns(rows)
    if not scores.size:
        raise InputError(f"{run.folder} has no validation images to choose a threshold on.")
    source = run.record.dataset.protocol.threshold_source
    found = []
    for rule, options in rules.items():
        try:
            chosen = image_threshold(run, rows, rule, options, source)
        except OptionError as error:
            found.append(RuleOutcome(rule, None, None, None, str(error)))
            continue
        if chosen.value is None:
            found.append(RuleOutcome(rule, None, None, None, chosen.text))
            continue
        flagged = scores > chosen.value
        wrong = int((flagged & (labels == 0)).sum()), int((~flagged & (labels == 1)).sum())
        found.append(RuleOutcome(rule, chosen.value, *wrong, chosen.text))
    return found


def rules_chart(run: Run, outcomes: Sequence[RuleOutcome]) -> str:
    """Return an SVG chart of a run's validation scores and the threshold of each rule."""
    rows = run.scores("validation")
    scores = {
        name: [row.score for row in rows if row.label == label] for label, name in ((0, "good"), (1, "anomalous"))
    }
    cuts = [
        (f"{one.rule}: {one.false_alarms} false alarms, {one.misses} missed", one.threshold)
        for one in outcomes
        if one.threshold is not None
    ]
    return cuts_chart(scores, cuts, "", "raw image score of the validation images")
