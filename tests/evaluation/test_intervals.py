"""Intervals and paired tests: against definitions and permutation, and their coverage by simulation."""

import numpy as np
import pytest
from scipy.stats import norm

from defectlab.evaluation.delong import placements
from defectlab.evaluation.intervals import auroc_interval
from defectlab.evaluation.metrics import auroc, f1_at, sort_scores, trivial_f1
from defectlab.evaluation.paired_tests import delong_test, holm
from defectlab.utils.errors import InputError


def draw(random: np.random.Generator, bad: int, good: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([random.normal(shift, 1, bad), random.normal(0, 1, good)]), np.repeat([1, 0], [bad, good])


def test_placements_are_pairs_counted():
    random = np.random.default_rng(0)
    bad, good = random.integers(0, 6, 7), random.integers(0, 6, 5)
    pairs = (bad[:, None] > good[None]) + 0.5 * (bad[:, None] == good[None])
    top, bottom = placements(bad, good)
    assert top.tolist() == pytest.approx(pairs.mean(axis=1).tolist())
    assert bottom.tolist() == pytest.approx(pairs.mean(axis=0).tolist())


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


def test_the_paired_test_keeps_its_error_rate_and_finds_a_difference():
    random = np.random.default_rng(2)
    false, found = 0, 0
    for _ in range(400):
        scores, labels = draw(random, 30, 30, 1.0)
        noise = random.normal(0, 0.7, (2, 60))
        false += delong_test(scores + noise[0], scores + noise[1], labels).p < 0.05
        found += delong_test(scores, noise[1], labels).p < 0.05
    assert false / 400 < 0.09
    assert found / 400 > 0.6  # AUROC 0.76 against 0.5 on 60 images


def test_the_paired_test_equals_a_permutation_test():
    random = np.random.default_rng(3)
    base, labels = draw(random, 40, 40, 1.0)
    first, second = base + random.normal(0, 0.5, 80), base + random.normal(-0.15 * labels, 0.9)
    ours = delong_test(first, second, labels)
    observed = auroc(sort_scores(first, labels)).value - auroc(sort_scores(second, labels)).value
    assert ours.difference == pytest.approx(observed)
    ranks = [np.argsort(np.argsort(scores)) for scores in (first, second)]
    extreme = 0
    for _ in range(2000):
        swap = random.random(80) < 0.5
        one, two = np.where(swap, ranks[1], ranks[0]), np.where(swap, ranks[0], ranks[1])
        areas = [auroc(sort_scores(scores, labels)).value for scores in (one, two)]
        extreme += abs(areas[0] - areas[1]) >= abs(observed) - 1e-12
    assert ours.p == pytest.approx(extreme / 2000, abs=0.06)


def test_equal_models_are_not_different_and_bad_input_is_refused():
    scores, labels = draw(np.random.default_rng(4), 5, 5, 1.0)
    assert delong_test(scores, scores, labels).p == 1.0
    with pytest.raises(InputError, match="same images"):
        delong_test(scores, scores[:-1], labels)
    with pytest.raises(InputError, match="at least two"):
        delong_test([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0, 0, 1])


def test_holm_is_the_definition():
    random = np.random.default_rng(5)
    values = dict(zip("abcdefg", random.random(7) / 10, strict=True))
    corrected = holm(values)
    ordered = sorted(values, key=values.get)
    for place, name in enumerate(ordered):
        expected = max(min(1, (7 - earlier) * values[other]) for earlier, other in enumerate(ordered[: place + 1]))
        assert corrected[name] == pytest.approx(expected)


def test_calling_everything_anomalous():
    labels = np.repeat([1, 0], [41, 9])
    assert trivial_f1(labels) == pytest.approx(f1_at(sort_scores(np.zeros(50), labels), -1.0).value)
    assert trivial_f1([0, 0]) is None
