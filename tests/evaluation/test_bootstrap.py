"""Intervals by drawing images again: each draw equals the metric of the drawn images, and intervals cover the truth."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers.scores import photographs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from defectlab.evaluation.bootstrap import (
    bootstrap_problem,
    image_intervals,
    logit_interval,
    resample_counts,
    resampled_curve_metrics,
    resampled_rates,
)
from defectlab.evaluation.intervals import auroc_interval, wilson_interval
from defectlab.evaluation.metrics import aupr, auroc, f1_at, f1_max, fpr_at_tpr, rates_at, sort_scores

LABELS = np.array([0] * 7 + [1] * 5 + [-1] * 2)


def test_each_class_is_drawn_on_its_own_as_often_as_it_has_images() -> None:
    draws = resample_counts(LABELS, repeats=200)
    assert draws.shape == (200, LABELS.size)
    assert (draws[:, LABELS == 0].sum(1) == 7).all()
    assert (draws[:, LABELS == 1].sum(1) == 5).all()
    assert (draws[:, LABELS == -1] == 0).all()
    assert np.array_equal(draws, resample_counts(LABELS, repeats=200))
    assert not np.array_equal(draws, resample_counts(LABELS, repeats=200, seed=1))
    assert draws.mean(0)[LABELS >= 0] == pytest.approx(1, abs=0.3)


def test_groups_are_drawn_whole_and_a_part_with_a_defect_counts_as_anomalous() -> None:
    labels = np.array([0, 0, 0, 1, 0, 0, 1, 1, -1])
    groups = ["a", "a", "b", "b", "c", "d", "e", "e", "e"]
    draws = resample_counts(labels, groups, repeats=100)
    for one, other in ((0, 1), (2, 3), (6, 7)):
        assert np.array_equal(draws[:, one], draws[:, other])
    assert (draws[:, [0, 4, 5]].sum(1) == 3).all()  # a, c, d are good
    assert (draws[:, [2, 6]].sum(1) == 2).all()  # b and e are not
    assert (draws[:, 8] == 0).all()


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0, 3.5]), st.booleans()), min_size=2, max_size=12),
    st.integers(0, 100),
    st.sampled_from([-1.0, 0.5, 2.0, 9.0]),
)
@settings(max_examples=150, deadline=None)
def test_metrics_of_counts_are_the_metrics_of_the_drawn_scores(
    samples: list[tuple[float, bool]], seed: int, threshold: float
) -> None:
    scores, labels = np.array([s for s, _ in samples]), np.array([y for _, y in samples])
    drawn = np.random.default_rng(seed).integers(0, 3, scores.size)
    values, step = np.unique(scores, return_inverse=True)
    defect, good = (np.bincount(step, drawn * kind, values.size)[None] for kind in (labels, ~labels))
    found = resampled_curve_metrics(defect, good)
    flagged = [float((drawn * kind)[scores > threshold].sum()) for kind in (labels, ~labels)]
    found |= resampled_rates(*(np.array([count]) for count in (*flagged, defect.sum(), good.sum())))
    again, marks = np.repeat(scores, drawn), np.repeat(labels, drawn)
    expected = {
        "AUROC": auroc(sort_scores(again, marks)),
        "AUPR": aupr(sort_scores(again, marks)),
        "F1Max": f1_max(sort_scores(again, marks)),
        "FPR_at_95TPR": fpr_at_tpr(sort_scores(again, marks)),
        "F1Score": f1_at(sort_scores(again, marks), threshold),
        **rates_at(sort_scores(again, marks), threshold),
    }
    assert set(found) == set(expected)
    for name, metric in expected.items():
        if metric.value is None:
            assert np.isnan(found[name][0])
        else:
            assert found[name][0] == pytest.approx(metric.value, abs=1e-12)


def test_image_intervals_say_their_method() -> None:
    draw = np.random.default_rng(3)
    labels = np.repeat([0, 1, -1], [30, 35, 3])
    scores = draw.normal(size=68) + 1.5 * (labels == 1)
    found = image_intervals(scores, labels, 0.7)
    assert found["AUROC"] == auroc_interval(scores, labels)
    assert found["TPR"] == wilson_interval(int((scores[labels == 1] > 0.7).sum()), 35)
    assert found["TNR"].method.startswith("Wilson")
    for name in ("AUPR", "F1Max", "F1Score", "accuracy", "precision", "FPR_at_95TPR"):
        assert found[name].method == "stratified bootstrap over images, 1000 draws, logit"
        assert 0 <= found[name].low < found[name].high <= 1
    grouped = image_intervals(scores, labels, 0.7, [str(number // 2) for number in range(68)])
    assert "clustered by part" in grouped.pop("AUROC").method
    assert grouped.pop("FPR_at_95TPR").method.startswith("18 groups of images are anomalous, of which 5 %")
    assert all("groups" in interval.method for interval in grouped.values())
    assert set(image_intervals(scores, labels, None)) == {"AUROC", "AUPR", "F1Max", "FPR_at_95TPR"}


def test_where_few_images_are_wrong_there_is_no_interval() -> None:
    labels = np.repeat([0, 1], 40)
    scores = labels + np.linspace(0, 0.9, 80) % 0.45
    one = scores.copy()
    one[0] = 5.0  # a single good image above all
    for wrong, values in ((0, scores), (1, one)):
        found = image_intervals(values, labels, 0.7)
        for name, what in (
            ("F1Max", "are wrong at the best threshold"),
            ("AUPR", "are wrong at the best threshold"),
            ("F1Score", "are wrong at the threshold"),
            ("accuracy", "are wrong at the threshold"),
            ("precision", "are flagged though good"),
            ("FPR_at_95TPR", "are flagged where 95 % are caught"),
        ):
            assert found[name].low is None
            if wrong:
                assert f"{wrong} images {what}" in found[name].method
        assert found["AUROC"].low is not None is not found["TPR"].low
    two = one.copy()
    two[1] = 5.0
    found = image_intervals(two, labels, 0.7)
    assert all(found[name].low is not None for name in ("F1Max", "AUPR", "F1Score", "accuracy", "precision"))
    parts = [str(number // 2) for number in range(80)]
    assert "1 groups of images are wrong" in image_intervals(two, labels, 0.7, parts)["F1Score"].method


@pytest.mark.parametrize(("good", "bad"), [(40, 29), (19, 40)])
def test_a_rate_at_95_percent_needs_images_of_both_kinds(good: int, bad: int) -> None:
    random, labels = np.random.default_rng(0), np.repeat([0, 1], [good, bad])
    found = image_intervals(random.normal(size=good + bad) + labels, labels, 0.5)["FPR_at_95TPR"]
    assert found.low is None
    assert "with fewer than" in found.method
    more = np.repeat([0, 1], [20, 30])
    assert image_intervals(random.normal(size=50) + more, more, 0.5)["FPR_at_95TPR"].low is not None


def test_where_draws_say_nothing_there_is_no_interval() -> None:
    perfect = image_intervals([*range(5), *range(5, 10)], [0] * 5 + [1] * 5, 4.5)
    assert perfect["F1Score"].low is perfect["F1Max"].high is None
    assert "same value" in perfect["F1Score"].method
    assert perfect["AUROC"].low < 1
    assert "4 images of a class" in image_intervals([*range(9)], [0] * 5 + [1] * 4, 4.5)["F1Score"].method
    lonely = image_intervals([1.0, 2.0, 1.5], [0, 0, 1], 1.2)
    assert lonely["F1Max"].low is None
    assert lonely["F1Max"].method == "one anomalous image: nothing is known of others"
    assert bootstrap_problem([0, 1, 1, 1], ["a", "a", "b", "b"]) is None
    assert "group" in str(bootstrap_problem([1, 1, 0, 0], ["a", "a", "b", "c"]))
    good_only = image_intervals([1.0, 2.0, 1.5], [0, 0, 0], 1.2)
    assert good_only["AUROC"].low is good_only["F1Max"].low is None
    assert good_only["TNR"].low is not None
    assert logit_interval(np.array([0.5, np.nan, np.nan]), "m").low is None
    assert logit_interval(np.array([0.5, np.nan, 0.4, 0.6]), "m").method == "m, 2 usable, logit"


def test_the_interval_is_normal_on_the_logit_scale_and_holds_the_metric() -> None:
    draws = expit(np.random.default_rng(0).normal(1.0, 0.3, 5000))
    found = logit_interval(np.array([0.7, *draws]), "m")
    ends = logit(0.7) + np.array([-1, 1]) * 1.96 * 0.3
    assert logit([found.low, found.high]) == pytest.approx(ends, abs=0.03)
    at_end = logit_interval(np.array([1.0, 1.0, 1.0, 0.9, 0.8]), "m")
    assert 0 < at_end.low < 0.9
    assert at_end.high == 1.0
    assert logit_interval(np.array([0.0, 0.0, 1.0]), "m").low == 0.0


def normal(draw: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Unit spread, the anomalous ones 1.2 higher."""
    return draw.normal(size=labels.size) + 1.2 * labels


def two_kinds(draw: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Heavy tails; of the anomalous ones a third look almost good, the others are far off."""
    shift = np.where(draw.random(labels.size) < 1 / 3, 0.3, 3.0)
    return draw.standard_t(3, size=labels.size) + shift * labels


def covered(
    simulations: int, count: int, repeats: int = 400, scored: Callable = normal, good: int | None = None
) -> dict[str, float]:
    """Share of simulated test sets whose interval holds the truth, of `count` anomalous images and as many good ones.

    `good`: another number of good ones.
    """
    draw = np.random.default_rng(5)
    labels, threshold = np.repeat([0, 1], [good or count, count]), 0.6
    marks = np.tile(labels, 800_000 // labels.size)  # in these shares: AUPR and F1 depend on them
    population = scored(draw, marks)
    truth = {
        "AUROC": auroc(sort_scores(population, marks)).value,
        "AUPR": aupr(sort_scores(population, marks)).value,
        "F1Max": f1_max(sort_scores(population, marks)).value,
        "FPR_at_95TPR": fpr_at_tpr(sort_scores(population, marks)).value,
        "F1Score": f1_at(sort_scores(population, marks), threshold).value,
        **{name: metric.value for name, metric in rates_at(sort_scores(population, marks), threshold).items()},
    }
    hits: dict[str, list[bool]] = {name: [] for name in truth}
    for _ in range(simulations):
        scores = scored(draw, labels)
        found = image_intervals(scores, labels, threshold, repeats=repeats)
        for name, value in truth.items():
            if found[name].low is not None:  # no interval promises nothing
                hits[name].append(found[name].low <= value <= found[name].high)
    return {name: float(np.mean(held)) for name, held in hits.items() if held}


def test_image_intervals_cover_the_truth() -> None:
    found = covered(simulations=200, count=40)
    assert min(found.values()) >= 0.88, found  # 0.93 less three standard errors of the simulation
    assert found["AUROC"] <= 0.99, found


@pytest.mark.long
@pytest.mark.parametrize(("count", "least"), [(15, 0.87), (40, 0.9), (100, 0.9)])
def test_coverage_of_image_intervals_at_length(count: int, least: float) -> None:
    found = covered(simulations=2000, count=count, repeats=1000)
    print(f"\n{count} good and {count} anomalous images:", found)
    assert min(found.values()) >= least, found


@pytest.mark.long
@pytest.mark.parametrize(("count", "good"), [(25, 60), (60, 25)])
def test_coverage_on_scores_of_another_shape(count: int, good: int) -> None:
    found = covered(simulations=1000, count=count, good=good, scored=two_kinds)
    print(f"\ntwo kinds of defect, heavy tails, {good} good and {count} anomalous images:", found)
    assert min(found.values()) >= 0.88, found


@pytest.mark.parametrize("simulations", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_the_bootstrap_over_parts_covers(simulations: int):
    random = np.random.default_rng(2)
    large, labels, _ = photographs(random, 40_000, 40_000, 1, 1.2, 0.2)
    truth = {"AUPR": aupr(sort_scores(large, labels)).value, "F1Max": f1_max(sort_scores(large, labels)).value}
    covered = dict.fromkeys(truth, 0)
    for _ in range(simulations):
        scores, labels, groups = photographs(random, 25, 25, 5, 1.2, 0.2)
        found = image_intervals(scores, labels, None, [str(group) for group in groups], repeats=200)
        for name, value in truth.items():
            covered[name] += found[name].low <= value <= found[name].high
    assert "groups of images" in found["AUPR"].method
    assert min(covered.values()) / simulations >= (0.9 if simulations > 100 else 0.85), covered
    print(f"\n25 parts of 5 photographs of each kind, {simulations} times:", covered)
