"""Thresholds against a search over every possible cut."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectlab.evaluation.metrics import f1_at, f1_max, round_down, sort_scores
from defectlab.evaluation.threshold import midpoint
from defectlab.evaluation.threshold_rules import choose_image_threshold, f1_threshold, good_max_threshold

TIED = st.sampled_from([-np.inf, -2.0, 0.0, 5e-324, 0.1, 0.25, 1.0, 7.5, 1.7e308, np.inf])
SAMPLES = st.lists(
    st.tuples(st.one_of(TIED, st.floats(allow_nan=False, width=32)), st.booleans()), min_size=1, max_size=25
)


def every_cut(scores: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """Best F1 of all cuts that a number can make, and the fewest alarms that reach it."""
    best, alarms = -1.0, 0
    for value in np.unique(scores)[::-1]:
        flagged = scores >= value
        if value == -np.inf:
            continue
        f1 = 2 * (flagged & labels).sum() / (flagged.sum() + labels.sum())
        if f1 > best + 1e-12:
            best, alarms = f1, int(flagged.sum())
    return best, alarms


@pytest.mark.row("3.15")
@given(SAMPLES, st.sampled_from([np.float32, np.float64]))
@settings(max_examples=250, deadline=None)
@pytest.mark.filterwarnings("ignore:overflow")
def test_f1_threshold_is_the_best_of_all_cuts(samples: list[tuple[float, bool]], dtype: type) -> None:
    scores, labels = np.array([s for s, _ in samples], dtype=dtype), np.array([y for _, y in samples])
    chosen = f1_threshold(sort_scores(scores, labels))
    if not labels.any() or np.all(scores[labels] == -np.inf):
        assert chosen.value is None
        assert chosen.rule == "none"
        return
    assert chosen.value is not None
    assert math.isfinite(chosen.value)
    best, alarms = every_cut(scores, labels)
    flagged = scores.astype(np.float64) > chosen.value
    assert f1_at(sort_scores(scores, labels), chosen.value).value == pytest.approx(best, abs=1e-12)
    assert flagged.sum() == alarms
    if dtype is np.float32:
        assert not np.any(scores.astype(np.float64) == chosen.value)
    if not np.any(scores[labels] == -np.inf):
        assert f1_max(sort_scores(scores, labels)).value == pytest.approx(best, abs=1e-12)


def test_halfway_and_in_full_precision() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.7], dtype=np.float32)
    chosen = f1_threshold(sort_scores(scores, [0, 0, 1, 1]))
    assert chosen.value == (float(scores[1]) + float(scores[2])) / 2
    assert (chosen.rule, chosen.source) == ("f1", "validation")
    assert "1.0000" in chosen.reason
    assert "2 anomalous and 2 good" in chosen.reason


def test_equal_f1_takes_the_fewest_alarms_and_all_equal_scores_flag_all() -> None:
    # Cutting below 4: tp 1 of 2, F1 2/3; below 1: tp 2, fp 2, F1 2/3.
    assert f1_threshold(sort_scores([1.0, 2.0, 3.0, 4.0], [1, 0, 0, 1])).value == 3.5
    constant = f1_threshold(sort_scores([5.0, 5.0, 5.0], [0, 1, 1]))
    assert constant.value == math.nextafter(5.0, 0)


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.0, 2.0), (-np.inf, np.inf), (3.0, np.inf), (-np.inf, -3.0), (1.6e308, 1.7e308), (-5e-324, 5e-324)],
)
def test_midpoint_lies_strictly_between(low: float, high: float) -> None:
    assert low < midpoint(low, high) < high


def test_midpoint_of_neighbours_still_parts_them() -> None:
    high = math.nextafter(1.0, 2.0)
    assert midpoint(1.0, high) == 1.0
    scores = np.array([1.0, high])
    assert f1_at(sort_scores(scores, [0, 1]), f1_threshold(sort_scores(scores, [0, 1])).value).value == 1.0


def test_good_max_lies_just_above() -> None:
    chosen = good_max_threshold(np.array([0.5, 2.0], dtype=np.float32))
    assert chosen.value is not None
    assert 2.0 < chosen.value < 2.0 + 1e-12
    assert chosen.rule == "good_max"
    for scores, reason in (([], "no good"), ([1.0, np.nan], "NaN"), ([1.0, np.inf], "infinite")):
        nothing = good_max_threshold(scores)
        assert nothing.value is None
        assert reason in nothing.reason


def test_image_rule_follows_the_classes_present() -> None:
    both = choose_image_threshold([1.0, 3.0, 9.0], [0, 1, -1])
    assert (both.value, both.rule) == (2.0, "f1")
    good = choose_image_threshold([1.0, 3.0, 9.0], [0, 0, -1], source="held-out good")
    assert good.rule == "good_max"
    assert good.value == math.nextafter(3.0, 4)
    assert good.source == "held-out good"
    assert "no anomalous images" in good.reason
    bad = choose_image_threshold([1.0, 3.0], [1, 1])
    assert (bad.value, bad.rule) == (None, "none")
    assert "anomalous images only" in bad.reason
    assert choose_image_threshold([], []).value is None
    assert "NaN" in choose_image_threshold([1.0, np.nan], [0, 1]).reason


@given(st.floats(allow_nan=False))
@settings(max_examples=150, deadline=None)
def test_below32_parts_float32_scores_where_the_threshold_does(threshold: float) -> None:
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
    scores = np.array([near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))])
    assert np.array_equal(scores > (round_down(threshold)), scores.astype(np.float64) > threshold)
