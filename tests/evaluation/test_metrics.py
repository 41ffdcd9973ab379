"""Metrics against scikit-learn, with ties, infinities and what cannot be computed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
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
from defectlab.evaluation.pixel.metrics import aupro
from defectlab.evaluation.suite import evaluate
from defectlab.utils.errors import InputError

TIED = st.sampled_from([-np.inf, -2.0, 0.0, 0.1, 0.25, 1.0, 7.5, np.inf])
SCORES = st.one_of(TIED, st.floats(allow_nan=False, width=32))
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
    assert auroc(sort_scores([1.0, np.nan, 2.0], [0, 1, 1])).reason == "1 of 3 scores are NaN"
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


def test_evaluate_gives_the_four_metrics_first_and_leaves_unknown_images_out() -> None:
    random = np.random.default_rng(0)
    labels = np.array([0, 1, 1, 0, -1, 1])
    scores = random.random(6).astype(np.float32)
    masks = random.random((6, 20, 30)) < 0.1
    masks[labels == 0] = False
    maps = (random.random((6, 20, 30)) + masks).astype(np.float32).round(2)
    result = evaluate(scores, labels, maps, masks, image_threshold=0.4, pixel_threshold=1.1)
    assert list(result)[:4] == ["image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"]
    known = labels >= 0
    truth, pixels = masks[known].ravel(), maps[known].ravel()
    assert result["image_AUROC"].value == pytest.approx(roc_auc_score(labels[known], scores[known]))
    assert result["image_F1Score"].value == pytest.approx(f1_score(labels[known], scores[known] > 0.4))
    assert result["pixel_AUROC"].value == pytest.approx(roc_auc_score(truth, pixels), abs=1e-12)
    assert result["pixel_F1Score"].value == pytest.approx(f1_score(truth, pixels.astype(float) > 1.1))


def test_evaluate_without_masks_or_maps_keeps_the_image_metrics() -> None:
    maps = np.zeros((2, 4, 4), dtype=np.float32)
    result = evaluate([1.0, 2.0], [0, 1], maps, None, image_threshold=1.5, pixel_threshold=None)
    assert result["image_F1Score"].value == 1.0
    assert result["pixel_AUROC"].reason == result["pixel_F1Score"].reason == "there are no masks"
    result = evaluate([1.0, 2.0], [0, 1], image_threshold=1.5, pixel_threshold=None)
    assert result["pixel_AUROC"].reason == "there are no anomaly maps"


def test_evaluate_refuses_masks_of_another_size() -> None:
    maps, masks = np.zeros((2, 4, 4), dtype=np.float32), np.zeros((2, 4, 5), dtype=bool)
    with pytest.raises(InputError, match=r"\(2, 4, 5\)"):
        evaluate([1.0, 2.0], [0, 1], maps, masks, image_threshold=1.5, pixel_threshold=None)


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


def plain_aupro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """The definition, threshold by threshold: mean overlap of regions against the share of good pixels flagged."""
    regions = []
    for number, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(number, labels == one) for one in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        flagged = maps >= threshold
        overlap = np.mean([flagged[number][region].mean() for number, region in regions])
        points.append((flagged[~masks].mean(), overlap))
    fpr, pro = np.array(points).T
    at_limit = np.interp(limit, fpr, pro) if limit < 1 else pro[-1]
    # where the rate does not move the curve jumps: the last point below the limit counts
    inside = fpr < limit
    fpr, pro = np.append(fpr[inside], limit), np.append(pro[inside], at_limit)
    return float(((fpr[1:] - fpr[:-1]) * (pro[1:] + pro[:-1]) / 2).sum() / limit)


@pytest.mark.row("4.6")
@pytest.mark.parametrize("levels", [3, 20, 10_000])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_aupro_equals_its_definition(levels: int, limit: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    masks = ndimage.gaussian_filter(draw.normal(size=(5, 14, 17)), (0, 1.2, 1.2)) > 0.25
    masks[0] = False
    maps = np.round((draw.normal(size=masks.shape) + 0.8 * masks) * levels / 8).astype(np.float32)
    value = aupro(maps, masks, limit).value
    assert value == pytest.approx(plain_aupro(maps, masks, limit), abs=1e-9)
    assert 0 <= value <= 1


def test_aupro_of_perfect_constant_and_inverted_maps() -> None:
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[0, 1:4, 1:4] = masks[1, 6, 6] = True
    assert aupro(masks.astype(np.float32), masks).value == pytest.approx(1)
    assert aupro(np.zeros(masks.shape, np.float32), masks).value == pytest.approx(0.15)  # the diagonal up to 0.3
    assert aupro(-masks.astype(np.float32), masks).value == pytest.approx(0)
    assert aupro(np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), bool)).value is None
    assert aupro(np.zeros((1, 2, 2), np.float32), np.ones((1, 2, 2), bool)).value is None


def test_each_region_counts_the_same_whatever_its_size() -> None:
    masks = np.zeros((1, 20, 20), dtype=bool)
    masks[0, :10, :10] = masks[0, 15, 15] = True
    maps = np.zeros(masks.shape, np.float32)
    maps[0, 15, 15] = 1  # finds the one-pixel region only
    assert aupro(maps, masks, 0.3).value == pytest.approx(0.5 + 0.15 / 2)


def test_every_metric_has_a_value_or_a_reason() -> None:
    nothing = evaluate([1.0, 2.0], [0, 0], image_threshold=None, pixel_threshold=None)
    assert len(nothing) == 21
    assert all(metric.value is None and metric.reason for metric in nothing.values())


def test_calling_everything_anomalous():
    labels = np.repeat([1, 0], [41, 9])
    assert trivial_f1(labels) == pytest.approx(f1_at(sort_scores(np.zeros(50), labels), -1.0).value)
    assert trivial_f1([0, 0]) is None
