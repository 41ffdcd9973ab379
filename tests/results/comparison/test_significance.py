"""Ties with the best: equal to the paired test of two runs, and what it means with several seeds."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.runs import finished, scored
from hypothesis import given, settings
from hypothesis import strategies as st

from defectlab.evaluation.intervals import auroc_interval
from defectlab.evaluation.multiple_comparisons import compare_auroc
from defectlab.evaluation.paired_tests import delong_test
from defectlab.results.comparison.paired_test import compare_runs
from defectlab.results.comparison.significance import TestScores, against_best, mean_auroc_interval, read_test_scores
from defectlab_runtime.scores import ScoreRow

RANDOM = np.random.default_rng(0)


def drawn(count: int = 60, shift: float = 1.0, random: np.random.Generator = RANDOM) -> TestScores:
    labels = np.repeat([0, 1], count // 2)
    names = tuple(f"{n:03d}" for n in range(count))
    return TestScores(names, ("",) * count, labels, labels * shift + random.normal(size=count))


def test_a_runs_scores_are_read_as_columns_in_the_order_of_their_paths():
    run = scored("one", 0.5, seed=1)  # written in another order
    run.write_scores([*run.scores(), ScoreRow("aa.png", "validation", "good", 0, 9.0, -1)])
    found = read_test_scores(run)
    expected = sorted(run.scores("test"), key=lambda row: row.image_path)
    assert found.paths == tuple(row.image_path for row in expected)
    assert found.scores.tolist() == [row.score for row in expected]
    assert found.labels.tolist() == [row.label for row in expected]
    assert read_test_scores(finished("empty")) is None


def test_single_runs_are_tested_as_compare_does():
    runs = [scored("best", 0.5, 0), scored("near", 0.55, 1), scored("far", 3.0, 2)]
    columns = [[read_test_scores(run)] for run in runs]
    p = against_best(columns, 0)
    by_run = {one.run.folder.name: one.p for one in compare_runs(runs)}
    assert p == [None, by_run["near"], by_run["far"]]


def test_seeds_of_equal_scores_are_as_sure_as_one_and_the_interval_is_its_own():
    one, other = drawn(), drawn(shift=0.4)
    assert against_best([[one] * 3, [other] * 2], 0)[1] == pytest.approx(
        delong_test(one.scores, other.scores, one.labels).p
    )
    found, plain = mean_auroc_interval([one] * 3), auroc_interval(one.scores, one.labels)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
    assert mean_auroc_interval([one]) == plain


def of_parts(random: np.random.Generator, count: int, part: np.ndarray) -> TestScores:
    """Three photographs a part, alike: `part` (2 * count,) is what the model makes of each part."""
    labels = np.repeat(np.repeat([0, 1], count), 3)
    names = tuple(f"{n:03d}" for n in range(labels.size))
    scores = labels + np.repeat(part, 3) + random.normal(0, 0.2, labels.size)
    return TestScores(names, names, labels, scores, tuple(name[:1] + str(int(name) // 3) for name in names))


def test_photographs_of_one_part_are_not_counted_as_many():
    random = np.random.default_rng(3)
    one, other = (of_parts(random, 20, random.normal(size=40)) for _ in range(2))
    with_parts = against_best([[one], [other]], 0)[1]
    assert with_parts == delong_test(one.scores, other.scores, one.labels, groups=one.groups).p
    plain = [replace(each, groups=None) for each in (one, other)]
    assert with_parts > against_best([[plain[0]], [plain[1]]], 0)[1]
    assert mean_auroc_interval([one]) == auroc_interval(one.scores, one.labels, groups=one.groups)
    seeds, plain_seeds = mean_auroc_interval([one] * 2), mean_auroc_interval([plain[0]] * 2)
    assert seeds.low < plain_seeds.low
    assert "clustered by part" in seeds.method
    assert "mean of 2 seeds" in seeds.method
    assert against_best([[one] * 2, [other] * 3], 0)[1] == pytest.approx(with_parts)
    assert against_best([[one], [plain[1]]], 0) == [None, None], "runs that know other parts are not paired"
    alone = replace(one, groups=("a",) * 60 + ("b",) * 60)
    assert against_best([[alone], [alone]], 0) == [None, None], "one part of a kind says nothing of others"


def test_ties_over_parts_are_as_often_wrong_as_they_say():
    random = np.random.default_rng(4)
    wrong = {"parts": 0, "images": 0}
    for _ in range(300):
        seeds = [[of_parts(random, 25, base + random.normal(0, 0.2, 50)) for _ in range(2)]
                 for base in random.normal(size=(2, 50))]  # fmt: skip
        wrong["parts"] += against_best(seeds, 0)[1] < 0.05
        plain = [[replace(one, groups=None) for one in its] for its in seeds]
        wrong["images"] += against_best(plain, 0)[1] < 0.05
    assert wrong["parts"] / 300 < 0.095
    assert wrong["images"] / 300 > 0.15


def test_p_values_are_corrected_for_their_number():
    entries = [[drawn(shift=shift)] for shift in (2.0, 1.2, 0.9, 0.1)]
    first = entries[0][0]
    expected = compare_auroc([its[0].scores[None] for its in entries], first.labels, np.arange(first.labels.size))
    assert against_best(entries, 0) == [None, *expected[1:].tolist()]
    plain = [delong_test(first.scores, its[0].scores, first.labels).p for its in entries[1:]]
    assert expected[1] > plain[0], "three comparisons, and the best was picked"
    assert against_best([*entries, []], 0)[4] is None


def test_the_test_of_means_is_as_often_wrong_as_it_says():
    """Two configurations of equal quality, three seeds each: the images' share is common, each seed has its noise."""
    random = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        labels = np.repeat([0, 1], 40)
        common = [labels + random.normal(size=80) for _ in range(2)]
        names = tuple(map(str, range(80)))
        seeds = [
            [TestScores(names, names, labels, base + random.normal(0, 0.3, 80)) for _ in range(3)] for base in common
        ]
        p = against_best(seeds, 0)[1]
        wrong += p < 0.05
    assert 0.02 < wrong / 400 < 0.085


def test_what_cannot_be_tested_has_no_p():
    one = drawn()
    other = TestScores(one.paths[::-1], one.defects, one.labels, one.scores)
    relabelled = TestScores(one.paths, one.defects, 1 - one.labels, one.scores)
    nan = TestScores(one.paths, one.defects, one.labels, np.where(one.scores > 2, np.nan, one.scores))
    few = TestScores(("a", "b"), ("", ""), np.array([0, 1]), np.array([0.0, 1.0]))
    assert against_best([[one], [other], [relabelled], [nan], [], [one]], 0) == [None, None, None, None, None, 1.0]
    assert against_best([[few], [few]], 0) == [None, None]
    assert against_best([[], [one]], 0) == [None, None]


def test_two_that_separate_perfectly_are_tied_and_have_an_interval():
    perfect = drawn(shift=100.0)
    assert against_best([[perfect] * 2, [drawn(shift=50.0)]], 0) == [None, 1.0]
    found = mean_auroc_interval([perfect, drawn(shift=60.0)])
    assert found == auroc_interval(perfect.scores, perfect.labels)
    assert 0.8 < found.low < found.high == 1.0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=2, max_size=4))
def test_with_any_ties_p_is_a_probability_and_the_interval_holds_the_mean(drawn_scores: list[list[int]]):
    labels = np.array([0, 0, 0, 1, 1, 1])
    names = tuple("abcdef")
    seeds = [TestScores(names, names, labels, np.array(scores, float)) for scores in drawn_scores]
    (p,) = against_best([seeds[:1], seeds[1:]], 0)[1:]
    assert 0 < p <= 1
    interval = mean_auroc_interval(seeds)
    values = [(np.subtract.outer(s.scores[3:], s.scores[:3]) > 0).mean()
              + (np.subtract.outer(s.scores[3:], s.scores[:3]) == 0).mean() / 2 for s in seeds]  # fmt: skip
    assert 0 <= interval.low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= interval.high <= 1


def test_seeds_with_one_image_of_a_class_have_the_interval_of_their_mean():
    labels, names = np.array([0, 0, 0, 0, 1]), tuple("abcde")
    scores = (np.array([1.0, 2, 3, 4, 5]), np.array([1.0, 2, 3, 4, 0.5]))  # AUROC 1 and 0
    found = mean_auroc_interval([TestScores(names, names, labels, one) for one in scores])
    assert found.low < 0.5 < found.high
    assert found.high == pytest.approx(1 - mean_auroc_interval(
        [TestScores(names, names, labels, -one) for one in scores]
    ).low)  # fmt: skip


def test_seeds_of_which_one_is_nan_have_no_interval():
    one = drawn()
    nan = replace(one, scores=np.where(one.scores > 2, np.nan, one.scores))
    for seeds in ([one, nan], [nan, one]):
        found = mean_auroc_interval(seeds)
        assert found.low is None
        assert "not finite" in found.method
