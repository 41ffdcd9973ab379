"""Swap tests of any metric, against plain loops over scikit-learn's functions."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from benchmarks.simulate_best import draw
from defectlab.evaluation import swaps
from defectlab.evaluation.bootstrap import resampled_image_metrics
from defectlab.evaluation.paired_tests import delong_test
from defectlab.evaluation.pixel.histograms import PixelHistograms
from defectlab.evaluation.swaps import compare_swapped, has_unvaried_class, image_pool, pixel_pool, swap_test

LABELS = np.array([0, 0, 0, 0, 1, 1, 1])
UNITS = np.arange(7)


def both(first: np.ndarray, second: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two models under every swap of their images, the models as they are first."""
    swaps = product((False, True), repeat=first.size)
    return [(np.where(swap, second, first), np.where(swap, first, second)) for swap in swaps]


def test_every_swap_of_few_images_is_tried():
    random = np.random.default_rng(0)
    scores = [LABELS + random.normal(size=7), 0.5 * LABELS + random.normal(size=7)]
    ranks = [its.argsort().argsort() for its in scores]
    for name, expected, results in (
        ("AUPR", average_precision_score, ranks),
        ("F1Score", lambda labels, flags: f1_score(labels, flags, zero_division=0), [its > 0.5 for its in scores]),
    ):
        differences = [abs(expected(LABELS, one) - expected(LABELS, two)) for one, two in both(*results)]
        p = np.mean(np.array(differences) >= differences[0] - 1e-12)
        assert swap_test(image_pool(name, scores, LABELS, [0.5, 0.5]), UNITS) == pytest.approx(p)


def test_two_defects_that_one_model_misses_are_no_proof():
    """All differences of the anomalous images are equal: a bootstrap gives 1 / 1001, all four swaps one half."""
    labels = np.array([0] * 6 + [1, 1])
    best, other = np.r_[np.zeros(6), 1.0, 1.0], np.zeros(8)
    pool = image_pool("TPR", [best, other], labels, [0.5, 0.5])
    assert has_unvaried_class(pool, labels, np.arange(8))
    assert swap_test(pool, np.arange(8)) == 0.5
    parts = np.array([0, 1, 2, 3, 4, 5, 6, 6])
    assert swap_test(pool, parts) == 1.0, "one part with both defects is swapped whole"


def test_delongs_test_of_a_class_without_variation_is_exact_for_few_images():
    random = np.random.default_rng(1)
    first = np.r_[random.normal(size=6), 5.0, 6.0]
    second = np.r_[first[:6].copy(), -5.0, -6.0]  # below all good ones
    labels = np.array([0] * 6 + [1, 1])
    ranks = [its.argsort().argsort() for its in (first, second)]

    def area(scores: np.ndarray) -> float:
        above = np.subtract.outer(scores[labels == 1], scores[labels == 0])
        return float(((above > 0) + (above == 0) / 2).mean())

    differences = np.array([abs(area(one) - area(two)) for one, two in both(*ranks)])
    assert delong_test(first, second, labels).p == np.mean(differences >= differences[0] - 1e-12)


def test_a_class_with_variation_is_left_to_the_bootstrap():
    random = np.random.default_rng(2)
    labels = np.repeat([0, 1], 10)
    scores = [labels + random.normal(size=20) for _ in range(2)]
    for name in ("AUPR", "F1Max", "accuracy", "FPR_at_95TPR"):
        assert not has_unvaried_class(image_pool(name, scores, labels, [0.5, 0.5]), labels, np.arange(20))
        assert not has_unvaried_class(image_pool(name, scores[:1] * 2, labels, [0.5, 0.5]), labels, np.arange(20))


def test_batches_of_any_size_give_the_same_and_bound_the_memory(monkeypatch: pytest.MonkeyPatch):
    random, labels, units = np.random.default_rng(4), np.repeat([0, 1], 10), np.arange(20)
    varied = [labels + random.normal(size=20) for _ in range(2)]
    unvaried = [varied[0] - 9 * labels, varied[0] + 9 * labels]  # the first finds no defect, the other all
    largest = []

    def results(scores: list[np.ndarray], name: str) -> tuple[list[float], float, bool]:
        pool = image_pool(name, scores, labels, [0.5, 0.5])

        def watched(resamples: np.ndarray) -> np.ndarray:
            largest.append(resamples.size)
            return pool(resamples)

        p = compare_swapped(watched, pool(np.eye(2, dtype=np.float32).repeat(20, axis=1)), units)
        return p.tolist(), swap_test(watched, units), has_unvaried_class(watched, labels, units)

    for scores, name, expected in ((varied, "F1Max", False), (unvaried, "TPR", True)):
        at_once = results(scores, name)
        with monkeypatch.context() as patch:
            patch.setattr(swaps, "BATCH_ELEMENTS", 130)  # three rows of two models, which divides no number of rows
            largest.clear()
            assert results(scores, name) == at_once
            assert max(largest) <= 130
        assert at_once[2] is expected


def test_a_class_that_varies_is_seen_on_the_first_batch(monkeypatch: pytest.MonkeyPatch):
    random, labels = np.random.default_rng(5), np.repeat([0, 1], 30)
    monkeypatch.setattr(swaps, "BATCH_ELEMENTS", 20 * 120)
    rows = 0
    scores = [labels + random.normal(size=60) for _ in range(2)]
    pool = image_pool("AUPR", scores, labels, [0.5, 0.5])

    def counted(resamples: np.ndarray) -> np.ndarray:
        nonlocal rows
        rows += len(resamples)
        return pool(resamples)

    assert not has_unvaried_class(counted, labels, np.arange(60))
    assert rows == 2 * (2 + 2 * 20), "of each class: itself with and without the other's, and 20 of 30 for each model"


@pytest.mark.parametrize("name", ["F1Max", "accuracy"])
def test_of_equal_models_any_is_called_worse_as_often_as_it_says(name: str):
    random, wrong = np.random.default_rng(3), 0
    for _ in range(30):
        scores, labels = draw(random, 6, 15, 15, 0.9, 0.5, False)
        pool = image_pool(name, list(scores), labels, [0.9] * 6)
        ones = np.ones((1, 30), np.float32)
        values = np.array([resampled_image_metrics(its, labels, 0.9, ones)[name][0] for its in scores])
        wrong += compare_swapped(pool, values, np.arange(30)).min() < 0.05
    assert wrong / 30 < 0.17
    scores[2] = random.normal(size=30) - 3 * labels
    pool = image_pool(name, list(scores), labels, [0.9] * 6)
    values[2] = resampled_image_metrics(scores[2], labels, 0.9, ones)[name][0]
    p = compare_swapped(pool, values, np.arange(30))
    assert p[2] == p.min() < 0.05
    assert p[int(values.argmax())] == 1


def test_pixels_are_swapped_with_their_image():

    def histograms(steps: int, best: int) -> PixelHistograms:
        defect, good = np.zeros((4, steps), np.float32), np.zeros((4, steps), np.float32)
        defect[2:, best], good[:, 0] = 5, 20
        flagged = np.stack([defect.sum(1) * (best > 0), np.zeros(4)], axis=1)
        return PixelHistograms(defect, good, defect / 5, np.array([0, 0, 1, 1], np.float32), flagged)

    labels, units = np.array([0, 0, 1, 1]), np.arange(4)
    models = [histograms(6, 5), histograms(4, 0)]
    for name in ("AUROC", "TPR", "AUPRO"):
        pool = pixel_pool(name, models)
        whole = np.r_[np.ones(4), np.zeros(4)].astype(np.float32)
        assert pool(np.stack([whole, whole[::-1]]))[0] == pytest.approx(1.0)
        assert has_unvaried_class(pool, labels, units)
        assert swap_test(pool, units) == 0.5
