"""Which of several models are told from the best: against plain loops, in simulations, and in special cases."""

import numpy as np
import pytest
from helpers.scores import photographs

from benchmarks.simulate_best import draw
from defectlab.evaluation.delong import placement_variance, placements
from defectlab.evaluation.metrics import auroc, sort_scores
from defectlab.evaluation.multiple_comparisons import _Swaps, compare_auroc, step_down

LABELS = np.repeat([0, 1], [9, 8])


def statistic(one: np.ndarray, other: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> float:
    """By how many standard errors the AUROC of the first is below that of the other, by scikit-free plain code."""
    bad = labels == 1
    (above, below), (above2, below2) = (placements(scores[bad], scores[~bad]) for scores in (one, other))
    parts = None if groups is None else (groups[bad], groups[~bad])
    difference = float(above2.mean() - above.mean())
    variance = placement_variance(above - above2, below - below2, parts)
    return 0.0 if abs(difference) < 1e-12 else float(difference / np.sqrt(variance)) if variance > 0 else np.inf


@pytest.mark.parametrize("with_parts", [False, True])
def test_the_first_step_is_a_swap_test_of_all_pairs(with_parts: bool):
    random = np.random.default_rng(1)
    labels, parts = LABELS, None
    scores = (labels + random.normal(size=(3, labels.size))).round(1)
    scores[2] -= 0.9 * labels
    if with_parts:
        parts = np.arange(labels.size) // 2
        scores += 0.5 * random.normal(size=(3, parts.max() + 1))[:, parts]
    units = np.arange(labels.size) if parts is None else parts
    found = compare_auroc([its[None] for its in scores], labels, units)
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    below = [max(statistic(scores[i], scores[j], labels, parts) for j in range(3) if j != i) for i in range(3)]
    ranks = scores.argsort().argsort() + 0.0
    for its, own in zip(ranks, scores, strict=True):
        its[:] = [(own < score).sum() + (own <= score).sum() for score in own]
    extreme = np.zeros(3)
    for _ in range(800):
        order = random.random((3, units.max() + 1)).argsort(axis=0)[:, units]
        swapped = np.take_along_axis(ranks, order, axis=0)
        extreme += max(statistic(swapped[i], swapped[j], labels, parts) for i, j in pairs) >= np.array(below) - 1e-9
    assert found == pytest.approx(extreme / 800, abs=0.07)
    assert found.max() == 1


def test_statistics_of_grouped_images_equal_those_of_dense_tables():
    """Units of unequal sizes in no order, some with images of one class only, against the variance of each pair."""
    random = np.random.default_rng(5)
    labels = random.permutation(np.repeat([0, 1], [25, 20]))
    units = np.unique(random.integers(18, size=45), return_inverse=True)[1]
    scores = (labels + random.normal(size=(3, 45))).round(1)
    found = _Swaps([its[None] for its in scores], labels == 1, units, 0).observed
    bad, count = labels == 1, units.max() + 1
    alike = [np.eye(count)[units[part]] for part in (bad, ~bad)]
    numbers = [np.count_nonzero(table.any(axis=0)) for table in alike]
    for i, j in [(i, j) for i in range(3) for j in range(3) if i != j]:
        one, other = (placements(its[bad], its[~bad]) for its in (scores[i], scores[j]))
        parts = [mine - its for mine, its in zip(one, other, strict=True)]
        sums = [(part - part.mean()) @ table / part.size for part, table in zip(parts, alike, strict=True)]
        shares = [size / (size - 1) * total @ total for size, total in zip(numbers, sums, strict=True)]
        variance = sum(shares) + 2 * count / (count - 1) * sums[0] @ sums[1]
        assert found[i, j] == pytest.approx(-parts[0].mean() / np.sqrt(variance))


def test_several_seeds_count_by_their_mean():
    random = np.random.default_rng(2)
    scores = [LABELS + random.normal(size=(count, LABELS.size)) for count in (3, 2, 1)]
    found = compare_auroc(scores, LABELS, np.arange(LABELS.size))
    areas = [np.mean([auroc(sort_scores(its, LABELS)).value for its in seeds]) for seeds in scores]
    assert found[int(np.argmax(areas))] == 1
    assert np.array_equal(found, compare_auroc(scores, LABELS, np.arange(LABELS.size))), "seeded"
    repeated = compare_auroc([scores[0], scores[1], np.repeat(scores[2], 3, axis=0)], LABELS, np.arange(LABELS.size))
    assert repeated == pytest.approx(found)


def test_a_bad_model_is_told_apart_and_equal_ones_are_not():
    labels = np.repeat([0, 1], 40)
    random = np.random.default_rng(3)
    good = 3 * labels + random.normal(size=80)
    scores = [good, good.copy(), good + random.normal(0, 0.01, 80), random.normal(size=80)]
    p = compare_auroc([its[None] for its in scores], labels, np.arange(80))
    assert p[:3].min() > 0.5
    assert p[3] == 0.002  # one of 500
    perfect = compare_auroc([labels[None] * 1.0, labels[None] * 2.0, good[None]], labels, np.arange(80))
    assert perfect[:2].tolist() == [1, 1]


def test_models_left_out_make_the_next_step_easier():
    observed = np.array([[0.0, -2.0, -9.0], [2.0, 0.0, -7.0], [9.0, 7.0, 0.0]])
    largest = {3: np.linspace(0.5, 5, 99), 2: np.linspace(0, 1.9, 99)}
    p = step_down(observed, lambda chosen: largest[len(chosen)])
    assert p == pytest.approx([1.0, 0.01, 0.01])
    alone = step_down(observed[:2, :2], lambda _: largest[3])
    assert alone[1] == pytest.approx((1 + (largest[3] >= 2).sum()) / 100)
    assert step_down(observed, lambda _: largest[3])[1] == pytest.approx(alone[1]), (
        "the first step alone leaves it tied"
    )


@pytest.mark.parametrize(
    ("models", "simulations"), [(10, 30), *(pytest.param(k, 400, marks=pytest.mark.long) for k in (10, 30))]
)
def test_of_equal_models_any_is_called_worse_as_often_as_it_says(models: int, simulations: int):
    random, wrong = np.random.default_rng(4), 0
    for _ in range(simulations):
        scores, labels = draw(random, models, 20, 20, 0.9, 0.5, False)
        wrong += compare_auroc([its[None] for its in scores], labels, np.arange(40)).min() < 0.05
    print(f"\n{models} equal models, any called worse in {wrong} of {simulations}")
    assert wrong / simulations < (0.08 if simulations > 100 else 0.15)


def test_parts_are_swapped_whole():
    random = np.random.default_rng(6)
    wrong = {"parts": 0, "images": 0}
    for _ in range(20):
        scores, labels, groups = photographs(random, 12, 12, 5, 1.0, 0.2)
        offsets = random.normal(0, 0.7, (4, groups.max() + 1))[:, groups]
        models = [(scores + its)[None] for its in offsets]
        for name, units in (("parts", groups), ("images", np.arange(labels.size))):
            wrong[name] += compare_auroc(models, labels, units).min() < 0.05
    assert wrong["parts"] <= 3
    assert wrong["images"] >= 5
