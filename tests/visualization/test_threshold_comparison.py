"""What each threshold rule would do on a run's validation images."""

import numpy as np
import pytest
from helpers.runs import finished

from defectlab.evaluation.threshold import RuleOptions
from defectlab.evaluation.threshold_rules import choose
from defectlab.results.run.run import Run
from defectlab.visualization.threshold_comparison import compare_rules, rules_chart
from defectlab_runtime.errors import InputError
from defectlab_runtime.scores import ScoreRow


def validated(good: list[float], bad: list[float]) -> Run:
    run = finished("one")
    scores = [(0, score) for score in good] + [(1, score) for score in bad]
    run.write_scores([ScoreRow(f"{n}", "validation", "", label, score, -1) for n, (label, score) in enumerate(scores)])
    return run


def test_rules_are_tried_on_validation_images_without_writing():
    good, bad = [1.0, 2.0, 3.0, 4.0, 6.0], [5.0, 7.0, 8.0]
    run = validated(good, bad)
    before = run.record
    rules = {"f1": RuleOptions(), "conformal": RuleOptions(false_alarm_rate=0.2), "recall": RuleOptions(recall=1.0)}
    found = {one.rule: one for one in compare_rules(run, rules | {"cost": RuleOptions()})}
    for rule, options in rules.items():
        cut = choose(rule, [*good, *bad], [0] * 5 + [1] * 3, options, "validation").value
        assert found[rule].threshold == cut
        assert found[rule].false_alarms == np.sum(np.array(good) > cut)
        assert found[rule].misses == np.sum(np.array(bad) <= cut)
    assert found["cost"].threshold is None
    assert "cost" in found["cost"].reason
    assert Run.open(run.folder).record == before
    drawn = rules_chart(run, list(found.values()))
    assert all(f"{rule}: {found[rule].false_alarms} false alarms" in drawn for rule in rules)
    assert "cost:" not in drawn


def test_a_rule_that_cannot_work_says_why_and_no_validation_images_are_refused():
    (one,) = compare_rules(validated([1.0, 2.0], [3.0]), {"conformal": RuleOptions(false_alarm_rate=0.01)})
    assert one.threshold is None
    assert "needs at least 99 held-out good images" in one.reason
    with pytest.raises(InputError, match="no validation images"):
        compare_rules(finished("empty"), {"f1": RuleOptions()})
