"""Threshold rules against their definitions, and their guarantees by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from defectlab.evaluation.metrics import f1_at, f1_max, sort_scores
from defectlab.evaluation.threshold import RULE_OPTIONS, RuleOptions, rule_options
from defectlab.evaluation.threshold_rules import (
    RULES,
    choose,
    choose_image_threshold,
    conformal_upper_bound,
    f1_threshold,
    good_max_threshold,
    images_needed,
    recall_lower_bound,
)
from defectlab_runtime.errors import OptionError

TIED = st.sampled_from([-np.inf, -2.0, 0.0, 5e-324, 0.1, 0.25, 1.0, 7.5, 1.7e308, np.inf])
SAMPLES = st.lists(
    st.tuples(st.one_of(TIED, st.floats(allow_nan=False, width=32)), st.booleans()), min_size=1, max_size=25
)

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
        ("recall", {"recall": 0.0}, r"in \(0, 1\]"),
        ("conformal", {"false_alarm_rate": 1.0}, "between 0 and 1"),
        ("conformal", {"false_alarm_rate": np.nan}, "finite"),
        ("mean_plus_k_std", {"k": -1.0}, "at least 0"),
        ("mean_plus_k_std", {"k": np.inf}, "finite"),
        ("cost", {"miss_cost": -1.0, "false_alarm_cost": 1.0, "defect_share": 0.1}, "not be negative"),
        ("cost", {"miss_cost": 0.0, "false_alarm_cost": 0.0, "defect_share": 0.1}, "nor both 0"),
        ("cost", {"miss_cost": 5.0, "false_alarm_cost": 1.0, "defect_share": 1.0}, "between 0 and 1"),
        ("manual", {}, "needs value"),
        ("manual", {"value": np.nan}, "needs value"),
    ],
)
def test_what_cannot_work_is_refused(rule: str, options: dict[str, float], message: str):
    with pytest.raises(OptionError, match=message):
        chosen(rule, **options)


def test_an_option_that_the_rule_does_not_use_is_refused():
    assert set(RULES) == set(RULE_OPTIONS)
    assert rule_options("recall", {"recall": 0.9, "k": None}) == RuleOptions(recall=0.9)
    with pytest.raises(OptionError, match=r"f1 does not use recall \(recall is for recall\)"):
        rule_options("f1", {"recall": 0.9})
    with pytest.raises(OptionError, match="false_alarm_rate is for quantile, conformal"):
        rule_options("mean_plus_k_std", {"false_alarm_rate": 0.9})


SOME = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40)


@given(SOME, SOME, st.floats(0, 6))
@settings(max_examples=150, deadline=None)
def test_the_rules_of_means_are_numpys(good: list[float], bad: list[float], k: float):
    scores, labels = np.array(good + bad, np.float32), np.repeat([0, 1], [len(good), len(bad)])
    exact = np.array(good, np.float64)
    assert chosen("mean_of_means", scores, labels) == pytest.approx((exact.mean() + np.mean(bad)) / 2, abs=1e-9)
    assert chosen("mean_plus_k_std", scores, labels, k=k) == pytest.approx(exact.mean() + k * exact.std(), abs=1e-6)


@given(SOME, st.integers(1, 99))
@settings(max_examples=300, deadline=None)
def test_quantile_and_conformal_are_their_definitions(good: list[float], percent: int):
    rate, labels = percent / 100, np.zeros(len(good), int)
    scores = np.array(good, np.float32)
    value = chosen("quantile", scores, labels, false_alarm_rate=rate)
    fine = [cut for cut in scores.tolist() if 100 * (scores > cut).sum() <= percent * len(good)]
    assert value == min(fine), "the lowest score that at most this share lies above"
    # conformal: the lowest score s for which (1 + the number of good scores above s) / (n + 1) <= rate, else none
    allowed = [cut for cut in scores.tolist() if 100 * ((scores > cut).sum() + 1) <= percent * (len(good) + 1)]
    if not allowed:
        with pytest.raises(OptionError, match=f"at least {images_needed(rate)} held-out"):
            chosen("conformal", scores, labels, false_alarm_rate=rate)
        assert len(good) < images_needed(rate)
    else:
        assert chosen("conformal", scores, labels, false_alarm_rate=rate) == min(allowed)


def test_the_message_of_conformal_says_its_guarantee():
    found = choose("conformal", np.arange(120.0), np.zeros(120, int), RuleOptions(), "validation")
    assert "score 120 of 120 held-out good ones" in found.reason
    assert "at most 0.01, on average over such held-out sets (it takes at least 99 images)" in found.text
    assert f"at most {conformal_upper_bound(120, 120):.3g}" in found.text


def test_the_bound_for_one_held_out_set_holds_by_simulation():
    draw = np.random.default_rng(1)
    bound = conformal_upper_bound(57, 59)
    rates = [1 - np.sort(draw.random(59))[56] for _ in range(4000)]  # the share of U(0, 1) above the 57th of 59
    assert np.mean(np.array(rates) <= bound) == pytest.approx(0.95, abs=0.015)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["lognormal", "heavy tails", "ties", "two modes"])
@pytest.mark.parametrize(("count", "rate"), [(99, 0.01), (150, 0.01), (19, 0.05), (200, 0.1), (37, 0.2)])
def test_the_false_alarm_rate_of_conformal_over_many_held_out_sets(kind: str, count: int, rate: float):
    draw = np.random.default_rng(2)

    def scores(size: int) -> np.ndarray:
        if kind == "two modes":
            return draw.normal(0, 1, size) + 6 * (draw.random(size) < 0.1)
        if kind == "ties":
            return draw.poisson(3, size).astype(float)
        return draw.lognormal(size=size) if kind == "lognormal" else draw.standard_cauchy(size)

    labels = np.zeros(count, int)
    rates = [
        (scores(2000) > chosen("conformal", scores(count), labels, false_alarm_rate=rate)).mean() for _ in range(3000)
    ]
    error = 4 * np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) <= rate + error
    if kind != "ties":  # without ties the rate is known: the images above the rank, of n + 1
        expected = np.floor(round((count + 1) * rate, 9)) / (count + 1)
        assert np.mean(rates) == pytest.approx(expected, abs=error)


def test_good_images_only_name_the_rules_that_work():
    prices = {"miss_cost": 5.0, "false_alarm_cost": 1.0, "defect_share": 0.1}
    for rule in ("f1", "recall", "mean_of_means", "cost"):
        with pytest.raises(OptionError, match=r"needs anomalous images, and validation has none.*conformal, quantile"):
            chosen(rule, GOOD, np.zeros(4, int), **(prices if rule == "cost" else {}))
    assert chosen("conformal", GOOD, np.zeros(4, int), false_alarm_rate=0.25) == 4.0
    with pytest.raises(OptionError, match="infinite"):
        chosen("mean_plus_k_std", np.array([1.0, np.inf]), np.zeros(2, int))


@pytest.mark.parametrize(
    ("rule", "options", "value"),
    [
        ("recall", RuleOptions(recall=1e-12), 4.5),
        ("quantile", RuleOptions(false_alarm_rate=1 - 1e-12), 0.0),
        ("conformal", RuleOptions(false_alarm_rate=1 - 1e-12), 0.0),
    ],
)
def test_shares_that_round_to_none_or_all_take_the_last_score(rule: str, options: RuleOptions, value: float):
    assert choose(rule, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0, 0, 0, 1, 1, 1], options, "validation").value == value


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
    chosen = f1_threshold(sort_scores(scores, labels, allow_infinite=True))
    if not labels.any() or np.all(scores[labels] == -np.inf):
        assert chosen.value is None
        assert chosen.rule == "none"
        return
    assert chosen.value is not None
    assert math.isfinite(chosen.value)
    best, alarms = every_cut(scores, labels)
    flagged = scores.astype(np.float64) > chosen.value
    assert f1_at(sort_scores(scores, labels, allow_infinite=True), chosen.value).value == pytest.approx(best, abs=1e-12)
    assert flagged.sum() == alarms
    if dtype is np.float32:
        assert not np.any(scores.astype(np.float64) == chosen.value)
    if not np.any(scores[labels] == -np.inf):
        assert f1_max(sort_scores(scores, labels, allow_infinite=True)).value == pytest.approx(best, abs=1e-12)


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
