"""Paired tests of two models: against permutation, with groups and without, and the correction for many."""

import numpy as np
import pytest
from helpers.scores import draw, photographs

from defectlab.evaluation.bootstrap import resample_counts, resampled_image_metrics
from defectlab.evaluation.metrics import auroc, sort_scores
from defectlab.evaluation.paired_tests import delong_test, paired_bootstrap
from defectlab_runtime.errors import InputError


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


@pytest.mark.parametrize("simulations", [150, pytest.param(2000, marks=pytest.mark.long)])
def test_the_paired_bootstrap_keeps_its_error_rate(simulations: int):
    """Two models of equal quality that share most of what is hard about an image."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    draws = np.concatenate([np.ones((1, 80), np.float32), resample_counts(labels, repeats=300)])
    wrong = dict.fromkeys(("AUROC", "AUPR", "F1Max", "F1Score", "accuracy"), 0)
    for _ in range(simulations):
        shared = 1.2 * labels + random.normal(size=80)
        found = [resampled_image_metrics(shared + random.normal(0, 0.6, 80), labels, 0.6, draws) for _ in range(2)]
        for name in wrong:
            first, second = (one[name] for one in found)
            wrong[name] += paired_bootstrap(first[0] - second[0], first[1:], second[1:]).p < 0.05
    print(f"\nfalse differences at 5 % in {simulations}:", wrong)
    assert max(wrong.values()) / simulations < (0.075 if simulations > 1000 else 0.11), wrong


def test_draws_that_all_say_the_same():
    same = np.full(99, 0.8)
    assert paired_bootstrap(0.0, same, same).p == 1.0
    apart = paired_bootstrap(0.2, same, same - 0.2)
    assert (apart.p, apart.low) == (0.01, None)
    known = np.array([0.5, np.nan, 0.7, 0.6])
    assert paired_bootstrap(0.1, known, known - [0.1, 0.0, 0.2, 0.0]).low is not None
