"""Metrics against scikit-learn, with ties and what cannot be computed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from defectlab.evaluation.metrics import (
    Confusion,
    aupr,
    auroc,
    confusion_at,
    f1_at,
    f1_max,
    fpr_at_tpr,
    rates_at,
    sort_scores,
    trivial_f1,
)
from defectlab_runtime.decision import round_down
from defectlab_runtime.errors import InputError

TIED = st.sampled_from([-2.0, 0.0, 0.1, 0.25, 1.0, 7.5])
SCORES = st.one_of(TIED, st.floats(allow_nan=False, allow_infinity=False, width=32))
SAMPLES = st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=40)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Order-preserving integers: scikit-learn accepts no infinities."""
    return np.unique(scores, return_inverse=True)[1]


@given(SAMPLES, st.sampled_from([np.float32, np.float64]))
@settings(max_examples=150, deadline=None)
def test_auroc_and_f1_equal_scikit_learn(samples: list[tuple[float, bool]], dtype: type) -> None:
    scores, labels = np.array([s for s, _ in samples], dtype=dtype), np.array([y for _, y in samples])
    ours = auroc(sort_scores(scores, labels))
    if labels.all() or not labels.any():
        assert ours.value is None
        assert ours.reason
    else:
        assert ours.value == pytest.approx(roc_auc_score(labels, ranks(scores)), abs=1e-12)
    best = f1_max(sort_scores(scores, labels))
    if labels.any():
        precision, recall, _ = precision_recall_curve(labels, ranks(scores))
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
        assert best.value == pytest.approx(f1.max(), abs=1e-12)
    else:
        assert best.value is None


@given(SAMPLES, st.one_of(TIED, st.floats(allow_nan=False)), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=150, deadline=None)
def test_counts_at_a_threshold_equal_the_definition(
    samples: list[tuple[float, bool]], threshold: float, dtype: type
) -> None:
    scores, labels = np.array([s for s, _ in samples], dtype=dtype), np.array([y for _, y in samples])
    predicted = scores.astype(np.float64) > threshold
    tn, fp, fn, tp = confusion_matrix(labels, predicted, labels=[False, True]).ravel()
    assert confusion_at(sort_scores(scores, labels), threshold) == Confusion(tp=tp, fp=fp, fn=fn, tn=tn)
    if labels.any():
        expected = f1_score(labels, predicted, zero_division=0)
        assert f1_at(sort_scores(scores, labels), threshold).value == pytest.approx(expected, abs=1e-12)


def test_a_float64_threshold_between_two_float32_neighbours_parts_them() -> None:
    low = np.float32(1.0)
    high = np.nextafter(low, np.float32(2))
    for share in (0.1, 0.5, 0.9):
        threshold = float(low) + share * (float(high) - float(low))
        counts = confusion_at(sort_scores(np.array([low, high]), [0, 1]), threshold)
        assert counts == Confusion(tp=1, fp=0, fn=0, tn=1)


def test_what_cannot_be_computed_says_why() -> None:
    assert "nothing anomalous" in (auroc(sort_scores([1.0, 2.0], [0, 0])).reason or "")
    assert "nothing good" in (auroc(sort_scores([1.0, 2.0], [1, 1])).reason or "")
    assert "no labelled" in (auroc(sort_scores([], [])).reason or "")
    assert "no labelled" in (f1_max(sort_scores([1.0], [-1])).reason or "")
    assert auroc(sort_scores([1.0, np.nan, 2.0], [0, 1, 1])).reason == "1 of 3 scores are not finite (1 NaN)"
    failed = sort_scores([np.inf, -np.inf, np.nan, 1.0], [1, 0, 1, 0])
    assert f1_max(failed).reason == "3 of 4 scores are not finite (1 NaN and 2 infinite)"
    assert auroc(sort_scores([np.inf, -np.inf], [1, 0], allow_infinite=True)).value == 1.0
    assert auroc(sort_scores([1.0, np.nan, 2.0], [0, -1, 1])).value == 1.0
    assert f1_at(sort_scores([1.0, 2.0], [0, 1]), None).reason == "there is no threshold"
    assert f1_at(sort_scores([1.0, 2.0], [0, 1]), float("nan")).reason == "the threshold is NaN"
    assert f1_at(sort_scores([1.0, 2.0], [0, 1]), 5.0).value == 0.0


def test_bad_labels_and_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="one shape"):
        auroc(sort_scores([1.0, 2.0], [0]))
    with pytest.raises(InputError, match="-1"):
        auroc(sort_scores([1.0, 2.0], [0, 2]))


def test_curve_keeps_float32_and_the_input() -> None:
    scores = np.array([3, 1, 2], dtype=np.float32)
    curve = sort_scores(scores, [1, 0, 1])
    assert curve.positives.dtype == curve.negatives.dtype == np.float32
    assert scores.tolist() == [3, 1, 2]


@given(SAMPLES, st.sampled_from([np.float32, np.float64]))
@settings(max_examples=150, deadline=None)
def test_aupr_and_fpr_at_95_tpr_equal_scikit_learn(samples: list[tuple[float, bool]], dtype: type) -> None:
    scores, labels = np.array([s for s, _ in samples], dtype=dtype), np.array([y for _, y in samples])
    ours = aupr(sort_scores(scores, labels))
    if not labels.any():
        assert ours.value is None
        assert ours.reason
        return
    assert ours.value == pytest.approx(average_precision_score(labels, ranks(scores)), abs=1e-12)
    rate = fpr_at_tpr(sort_scores(scores, labels))
    if labels.all():
        assert rate.value is None
    else:
        fpr, tpr, _ = roc_curve(labels, ranks(scores), drop_intermediate=False)
        assert rate.value == pytest.approx(fpr[tpr >= 0.95 - 1e-12].min(), abs=1e-12)


@given(SAMPLES, st.one_of(TIED, st.floats(allow_nan=False)))
@settings(max_examples=100, deadline=None)
def test_rates_at_a_threshold_equal_scikit_learn(samples: list[tuple[float, bool]], threshold: float) -> None:
    scores, labels = np.array([s for s, _ in samples]), np.array([y for _, y in samples])
    predicted = scores > threshold
    rates = rates_at(sort_scores(scores, labels), threshold)
    assert rates["accuracy"].value == pytest.approx(accuracy_score(labels, predicted))
    expected = {
        "precision": (precision_score(labels, predicted, zero_division=0), predicted.any()),
        "recall": (recall_score(labels, predicted, zero_division=0), labels.any()),
        "TPR": (recall_score(labels, predicted, zero_division=0), labels.any()),
        "TNR": (recall_score(~labels, ~predicted, zero_division=0), not labels.all()),
    }
    for name, (value, there) in expected.items():
        assert rates[name].value == (pytest.approx(value) if there else None)
        assert bool(rates[name].reason) != there


def test_calling_everything_anomalous():
    labels = np.repeat([1, 0], [41, 9])
    assert trivial_f1(labels) == pytest.approx(f1_at(sort_scores(np.zeros(50), labels), -1.0).value)
    assert trivial_f1([0, 0]) is None


@given(st.floats(allow_nan=False))
@settings(max_examples=150, deadline=None)
def test_below32_parts_float32_scores_where_the_threshold_does(threshold: float) -> None:
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
    scores = np.array([near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))])
    assert np.array_equal(scores > (round_down(threshold)), scores.astype(np.float64) > threshold)
