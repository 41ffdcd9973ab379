"""Curves, kinds of defect and the worst images, from the scores of a run."""

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from defectlab.evaluation.metrics import sort_scores
from defectlab.results.curves import by_kind, pr_points, roc_points, where_it_fails
from defectlab.results.evaluate import with_decision
from defectlab_runtime.scores import ScoreRow

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.random(300) < 0.4
SCORES = (RANDOM.normal(size=300) + LABELS).round(1)


def test_curves_equal_scikit_learn():
    fpr, tpr = roc_points(sort_scores(SCORES, LABELS))
    expected = roc_curve(LABELS, SCORES, drop_intermediate=False)
    assert fpr.tolist() == pytest.approx(expected[0].tolist())
    assert tpr.tolist() == pytest.approx(expected[1].tolist())
    recall, precision = pr_points(sort_scores(SCORES, LABELS))
    p, r, _ = precision_recall_curve(LABELS, SCORES)
    assert precision[::-1].tolist() == pytest.approx(p[:-1].tolist())
    assert recall[::-1].tolist() == pytest.approx(r[:-1].tolist())


def test_a_curve_of_very_many_points_is_thinned_and_keeps_its_area():
    labels = RANDOM.random(200_000) < 0.02
    scores = RANDOM.normal(size=labels.size) + 2 * labels
    fpr, tpr = roc_points(sort_scores(scores, labels))
    assert fpr.size < 2000
    assert auc(fpr, tpr) == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)


def rows() -> list[ScoreRow]:
    kinds = {"good": (0, [1, 2, 3, 6]), "scratch": (1, [5, 7]), "hole": (1, [2.5, 9]), "": (-1, [4])}
    return [
        ScoreRow(f"{kind}{n}.png", "test", kind, label, score, -1)
        for kind, (label, scores) in kinds.items()
        for n, score in enumerate(scores)
    ]


def test_kinds_are_counted_apart_and_compared_with_the_good():
    kinds = {kind.defect: kind for kind in by_kind(rows(), 4.5)}
    assert {name: (kind.count, kind.flagged) for name, kind in kinds.items()} == {
        "good": (4, 1), "scratch": (2, 2), "hole": (2, 1), "": (1, 0),
    }  # fmt: skip
    assert kinds["scratch"].auroc == pytest.approx(roc_auc_score([0, 0, 0, 0, 1, 1], [1, 2, 3, 6, 5, 7]))
    assert kinds["good"].auroc is None
    averages = [kind.mean_score for kind in by_kind(rows(), None)]
    assert averages == sorted(averages)


def test_where_it_fails_is_ordered():
    found = where_it_fails(rows(), 4.5, count=2)
    names = {title: [rows()[index].image_path for index in indices] for title, indices in found.items()}
    assert names == {
        "Good images that score highest": ["good3.png", "good2.png"],
        "Defects that score lowest": ["hole0.png", "scratch0.png"],
        "Closest to the threshold": ["0.png", "scratch0.png"],
    }


def test_scores_that_are_nan_are_undecided_and_stand_last():
    scores = [0.2, np.nan, 0.9, 0.4, np.nan, 0.1]
    rows = [ScoreRow(f"{n}.png", "test", "", n % 2, score, -1) for n, score in enumerate(scores)]
    assert [with_decision(row, 0.3).pred_label for row in rows] == [0, -1, 1, 1, -1, 0]
    found = where_it_fails(rows, 0.35, 2)
    assert found["Good images that score highest"] == [4, 2]
    assert found["Defects that score lowest"] == [5, 3]
    assert found["Closest to the threshold"] == [3, 0]
    assert [kind.flagged for kind in sorted(by_kind(rows, 0.35), key=lambda kind: kind.label)] == [2, 2]
