"""Intervals over parts with several photographs: DeLong's where parts are single, wider and covering where not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from defectlab.evaluation.bootstrap import image_intervals
from defectlab.evaluation.delong import placement_variance, placements
from defectlab.evaluation.intervals import auroc_interval
from defectlab.evaluation.metrics import aupr, f1_max, sort_scores
from defectlab.evaluation.paired_tests import delong_test
from defectlab.utils.errors import InputError


def photographs(random: np.random.Generator, bad: int, good: int, views: int, shift: float, within: float):
    """Scores of `views` images a part; `within` is the share of the variance that images of a part do not share."""
    part = np.repeat(random.normal(0, 1, bad + good), views)
    labels = np.repeat([1, 0], [bad * views, good * views])
    own = random.normal(0, 1, labels.size)
    scores = labels * shift + np.sqrt(1 - within) * part + np.sqrt(within) * own
    return scores, labels, np.repeat(np.arange(bad + good), views)


def test_single_images_give_delongs_own_interval():
    random = np.random.default_rng(0)
    scores, labels, groups = photographs(random, 14, 21, 1, 1.0, 0.5)
    plain, grouped = auroc_interval(scores, labels), auroc_interval(scores, labels, groups=groups)
    assert (grouped.low, grouped.high) == pytest.approx((plain.low, plain.high), rel=1e-12)
    assert "Obuchowski" in grouped.method
    names = [f"part {n}" for n in random.permutation(35)]
    assert auroc_interval(scores, labels, groups=names).low == pytest.approx(plain.low, rel=1e-12)


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_variance_is_obuchowskis_formula(bad: int, good: int, seed: int):
    random = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [3 * bad, 3 * good])
    scores = random.integers(0, 6, labels.size).astype(float)
    groups = random.integers(0, 8, labels.size)  # some parts have images of both labels
    parts = sorted(set(groups))
    with_bad = {g for g in parts if (labels[groups == g] == 1).any()}
    with_good = {g for g in parts if (labels[groups == g] == 0).any()}
    x, y = scores[labels == 1], scores[labels == 0]
    found = placement_variance(*placements(x, y), (groups[labels == 1], groups[labels == 0]))
    if min(len(with_bad), len(with_good)) < 2:
        assert np.isnan(found)
        return
    pairs = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    area, m, n = pairs.mean(), x.size, y.size
    v10 = {g: sum(pairs[i].mean() - area for i in np.flatnonzero(groups[labels == 1] == g)) for g in parts}
    v01 = {g: sum(pairs[:, j].mean() - area for j in np.flatnonzero(groups[labels == 0] == g)) for g in parts}
    s10 = len(with_bad) / ((len(with_bad) - 1) * m) * sum(v**2 for v in v10.values())
    s01 = len(with_good) / ((len(with_good) - 1) * n) * sum(v**2 for v in v01.values())
    s11 = len(parts) / (len(parts) - 1) * sum(v10[g] * v01[g] for g in parts)
    assert found == pytest.approx(max(s10 / m + s01 / n + 2 * s11 / (m * n), 0), abs=1e-12)


def test_coverage_where_photographs_of_a_part_resemble_each_other():
    random = np.random.default_rng(1)
    truth = norm.cdf(1.2 / np.sqrt(2))
    covered = {"grouped": 0, "plain": 0}
    for _ in range(400):
        scores, labels, groups = photographs(random, 25, 25, 5, 1.2, 0.2)
        for name, chosen in (("grouped", groups), ("plain", None)):
            interval = auroc_interval(scores, labels, groups=chosen)
            covered[name] += interval.low <= truth <= interval.high
    assert 0.92 <= covered["grouped"] / 400 <= 0.99
    assert covered["plain"] / 400 < 0.8, "images taken as independent make a false promise"


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


def test_a_perfect_split_counts_parts_not_images():
    scores, labels = np.arange(40.0), np.repeat([0, 1], 20)
    few = auroc_interval(scores, labels, groups=np.arange(40) // 5)
    assert few.high == 1
    assert few.low < auroc_interval(scores, labels).low
    assert "4 parts with anomalous and 4 with good images" in few.method
    one = auroc_interval(np.array([1.0, 3.0, 2.0, 4.0]), [0, 0, 1, 1], groups=[0, 0, 1, 1])
    assert one.low < 0.5, "one part of each kind says almost nothing"
    with pytest.raises(InputError, match="each of the 40 images"):
        auroc_interval(scores, labels, groups=[1, 2])


def test_the_paired_test_keeps_its_error_rate_over_parts():
    random = np.random.default_rng(4)
    false = {"grouped": 0, "plain": 0}
    for _ in range(300):
        scores, labels, groups = photographs(random, 20, 20, 5, 1.0, 0.2)
        offsets = random.normal(0, 0.7, (2, 40))[:, groups]  # what each model makes of a part
        for name, chosen in (("grouped", groups), ("plain", None)):
            false[name] += delong_test(scores + offsets[0], scores + offsets[1], labels, groups=chosen).p < 0.05
    assert false["grouped"] / 300 < 0.1
    assert false["plain"] / 300 > 0.2
    scores, labels, groups = photographs(random, 4, 4, 3, 9.0, 0.2)
    assert delong_test(scores, scores * 2, labels, groups=groups).p == 1.0
    with pytest.raises(InputError, match="two parts"):
        delong_test(scores, scores, labels, groups=np.where(labels == 1, 0, 1))
