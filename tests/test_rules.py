"""Threshold rules against their definitions, and their guarantees by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from defectlab.errors import OptionError
from defectlab.evaluation.rules import RuleOptions, choose, images_needed, recall_lower_bound
from defectlab.evaluation.views import at_100, min_max

GOOD = np.array([1.0, 2.0, 2.0, 4.0])
BAD = np.array([3.0, 5.0, 5.0, 9.0])
SCORES, LABELS = np.concatenate([GOOD, BAD]), np.repeat([0, 1], 4)


def chosen(rule: str, scores=SCORES, labels=LABELS, **options: float) -> float:
    value = choose(rule, scores, labels, RuleOptions(**options), "validation").value
    assert value is not None
    return value


def test_the_simple_rules_by_hand():
    assert chosen("mean_of_means") == (2.25 + 5.5) / 2
    assert chosen("mean_plus_k_std", k=2) == pytest.approx(2.25 + 2 * np.std(GOOD))
    assert chosen("manual", value=1.25) == 1.25
    assert chosen("quantile", false_alarm_rate=0.25) == 2.0
    assert chosen("quantile", false_alarm_rate=0.2) == 4.0
    assert chosen("conformal", false_alarm_rate=0.2) == 4.0
    assert chosen("conformal", false_alarm_rate=0.4) == 2.0
    assert chosen("recall", recall=1.0) == 2.5
    assert chosen("recall", recall=0.5) == 4.5
    assert np.nextafter(4.0, 5) == chosen("good_max")


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=12),
    st.lists(st.integers(0, 12), min_size=1, max_size=12),
    st.floats(0.05, 1),
)
@settings(max_examples=200, deadline=None)
def test_recall_is_the_largest_threshold_that_catches_enough(good: list[int], bad: list[int], share: float):
    scores = np.array(good + bad, dtype=np.float32)
    value = chosen("recall", scores, np.repeat([0, 1], [len(good), len(bad)]), recall=share)
    caught = np.array(bad) > value
    assert caught.mean() >= share - 1e-9
    higher = [cut for cut in np.unique(scores) if cut > value]
    assert all((np.array(bad) > cut).mean() < share - 1e-9 for cut in higher)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=9),
    st.lists(st.integers(0, 9), min_size=1, max_size=9),
    st.floats(0.01, 0.99),
    st.floats(0, 50),
)
@settings(max_examples=200, deadline=None)
def test_cost_is_the_lowest_of_all_thresholds(good: list[int], bad: list[int], share: float, miss: float):
    labels = np.repeat([0, 1], [len(good), len(bad)])
    value = chosen("cost", good + bad, labels, miss_cost=miss, false_alarm_cost=1.0, defect_share=share)

    def cost(threshold: float) -> float:
        missed, alarms = (np.array(bad) <= threshold).mean(), (np.array(good) > threshold).mean()
        return share * miss * missed + (1 - share) * alarms

    assert cost(value) <= min(cost(cut) for cut in (-1.0, *np.unique(good + bad))) + 1e-12


def test_the_false_alarm_rate_of_conformal_holds_by_simulation():
    draw = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        held_out, new = draw.lognormal(size=59), draw.lognormal(size=500)
        rates.append((new > chosen("conformal", held_out, np.zeros(59, int), false_alarm_rate=0.05)).mean())
    # 60 * 0.05 = 3: the 57th of 59, whose expected rate is exactly 3 / 60
    assert np.mean(rates) == pytest.approx(0.05, abs=4 * np.std(rates) / np.sqrt(len(rates)))


def test_conformal_says_how_many_images_it_needs():
    with pytest.raises(OptionError, match=r"needs at least 99 held-out good images, and validation has 4"):
        chosen("conformal", false_alarm_rate=0.01)
    for rate in (0.3, 0.1, 0.05, 0.011):
        needed = images_needed(rate)
        chosen("conformal", np.arange(needed, dtype=float), np.zeros(needed, int), false_alarm_rate=rate)
        with pytest.raises(OptionError, match=f"at least {needed}"):
            chosen("conformal", np.arange(needed - 1, dtype=float), np.zeros(needed - 1, int), false_alarm_rate=rate)


@pytest.mark.parametrize(("caught", "total"), [(1, 10), (9, 10), (10, 10), (0, 5), (57, 63)])
def test_the_lower_bound_is_the_exact_binomial_one(caught: int, total: int):
    exact = binomtest(caught, total, alternative="greater").proportion_ci(0.95, "exact").low
    assert recall_lower_bound(caught, total) == pytest.approx(exact)


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("conforml", {}, "Did you mean 'conformal'"),
        ("cost", {"miss_cost": 1.0}, "needs false_alarm_cost, defect_share"),
        ("recall", {"recall": 1.5}, r"in \(0, 1\]"),
        ("quantile", {"false_alarm_rate": 0.0}, "between 0 and 1"),
        ("manual", {}, "needs value"),
    ],
)
def test_what_cannot_work_is_refused(rule: str, options: dict[str, float], message: str):
    with pytest.raises(OptionError, match=message):
        chosen(rule, **options)


def test_good_images_only_name_the_rules_that_work():
    for rule in ("f1", "recall", "mean_of_means", "cost"):
        with pytest.raises(OptionError, match=r"needs anomalous images, and validation has none.*conformal, quantile"):
            chosen(rule, GOOD, np.zeros(4, int))
    assert chosen("conformal", GOOD, np.zeros(4, int), false_alarm_rate=0.25) == 4.0
    with pytest.raises(OptionError, match="infinite"):
        chosen("mean_plus_k_std", np.array([1.0, np.inf]), np.zeros(2, int))


FINITE = st.floats(-1e6, 1e6)


@given(st.lists(FINITE, min_size=1, max_size=20), FINITE, st.integers(0, 4), FINITE, FINITE)
@settings(max_examples=300, deadline=None)
def test_no_view_flips_a_decision(scores: list[float], threshold: float, digits: int, one: float, other: float):
    raw = np.array([*scores, threshold, np.nextafter(threshold, np.inf)])
    decisions = raw > threshold
    for view in (at_100(raw, threshold), at_100(raw, threshold, digits)):
        assert ((view > 100) == decisions).all()
    if one != other:
        assert ((min_max(raw, threshold, min(one, other), max(one, other)) > 0.5) == decisions).all()
    order = np.argsort(raw, kind="stable")
    assert (np.diff(at_100(raw, threshold, digits)[order]) >= 0).all()


def test_the_views_formulas():
    assert at_100(np.array([4.0, 10.0]), 2.0).tolist() == [200, 500]
    assert at_100(np.array([0.5, 99.0]), 0.0).tolist() == [150, 1000]
    assert at_100(np.array([-3.0, -2.0, -1.0]), -2.0).tolist() == [50, 100, 150]
    assert min_max([0.0, 5.0, 10.0, 99.0], 4.0, 0.0, 10.0).tolist() == pytest.approx([0.1, 0.6, 1.0, 1.0])
