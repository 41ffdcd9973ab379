"""Intervals of AUROC and of shares: against definitions, and their coverage by simulation."""

import numpy as np
import pytest
from helpers.scores import draw, photographs
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from defectlab.evaluation.intervals import auroc_interval, wilson_interval
from defectlab_runtime.errors import InputError


@pytest.mark.parametrize(("bad", "good", "shift"), [(23, 10, 1.0), (30, 30, 0.3), (63, 20, 2.2), (40, 40, 4.0)])
def test_the_interval_covers_the_true_auroc(bad: int, good: int, shift: float):
    random = np.random.default_rng(1)
    truth = norm.cdf(shift / np.sqrt(2))
    covered = 0
    for _ in range(600):
        interval = auroc_interval(*draw(random, bad, good, shift))
        covered += interval.low <= truth <= interval.high
    assert 0.92 <= covered / 600 <= 0.995


def test_a_perfect_split_has_an_interval_of_some_width():
    few, many = (auroc_interval(np.arange(2 * n), np.repeat([0, 1], n)) for n in (5, 100))
    assert few.high == many.high == 1
    assert few.low < many.low < 1
    assert "Newcombe" in few.method
    assert auroc_interval([1.0, 2.0], [0, 1]).low < 0.5
    assert auroc_interval([1.0, 2.0], [0, 0]).low is None


@given(st.integers(1, 60), st.floats(0, 1))
def test_wilson_is_scipys(count: int, share: float) -> None:
    hits = round(share * count)
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    found = wilson_interval(hits, count)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_single_images_give_delongs_own_interval():
    random = np.random.default_rng(0)
    scores, labels, groups = photographs(random, 14, 21, 1, 1.0, 0.5)
    plain, grouped = auroc_interval(scores, labels), auroc_interval(scores, labels, groups=groups)
    assert (grouped.low, grouped.high) == pytest.approx((plain.low, plain.high), rel=1e-12)
    assert "Obuchowski" in grouped.method
    names = [f"part {n}" for n in random.permutation(35)]
    assert auroc_interval(scores, labels, groups=names).low == pytest.approx(plain.low, rel=1e-12)


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
