"""All metrics of a run at once: their order, and what is said where one has no value."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from defectlab.evaluation.suite import evaluate
from defectlab_runtime.errors import InputError


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


def test_every_metric_has_a_value_or_a_reason() -> None:
    nothing = evaluate([1.0, 2.0], [0, 0], image_threshold=None, pixel_threshold=None)
    assert len(nothing) == 21
    assert all(metric.value is None and metric.reason for metric in nothing.values())
