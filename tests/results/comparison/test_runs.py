"""What the notebooks ask: which runs there are, rankings as tables, and what each threshold rule would do."""

import numpy as np
import pytest
from helpers.runs import finished, measured

from defectlab.evaluation.threshold import RuleOptions
from defectlab.evaluation.threshold_rules import choose
from defectlab.results.comparison.runs import finished_runs, kinds_by_run, ranked_runs, ranking_frame, rankings_of
from defectlab.results.run.run import Run
from defectlab.results.run.scores import ScoreRow
from defectlab.utils.errors import InputError
from defectlab.visualization.threshold_comparison import compare_rules, rules_chart


def test_finished_runs_are_found_and_their_absence_says_what_makes_them():
    with pytest.raises(InputError, match="There are no finished runs under results yet: run the training cells"):
        finished_runs()
    one, other = finished("one"), finished("two", dataset="bottle")
    unfinished = finished("three")
    unfinished.update(status="failed")
    assert {run.folder for run in finished_runs()} == {one.folder, other.folder}
    assert [run.folder for run in finished_runs("bottle")] == [other.folder]
    with pytest.raises(InputError, match=r"of plates \(there are some of bottle, coins\) under results"):
        finished_runs("plates")


def test_a_board_is_a_table_best_first_and_names_its_runs():
    runs = [measured("far", 3.0, 2), measured("best", 0.5, 0), measured("near", 0.55, 1)]
    without = finished("without", metrics={"image_AUROC": None})
    (ranking,) = rankings_of([*runs, without])
    frame = ranking_frame(ranking)
    assert frame["run"].tolist() == ["best", "near", "far", "without"]
    assert frame["verdict"].tolist() == ["best", "tied with the best", "worse", ""]
    assert frame.index.tolist() == [1, 2, 3, 4]
    assert "sd of seeds" not in frame
    assert [run.folder.name for run in ranked_runs(ranking, [*runs, without])] == ["best", "near", "far"]
    assert set(kinds_by_run(runs)) == {run.record.run_id for run in runs}


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
