"""Every metric of a real run that scikit-learn has, computed again by scikit-learn from scores.csv and the raw maps."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics as sk

from defectlab import Engine, Folder, Padim, load_backbone
from defectlab.results.run.run import Run


def recomputed(level: str, scores: np.ndarray, truth: np.ndarray, threshold: float) -> dict[str, float]:
    """Scikit-learn's values from scores (n,) and truth (n,)."""
    decided = scores.astype(np.float64) > threshold
    fpr, tpr, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
    precision, recall, _ = sk.precision_recall_curve(truth, scores)
    tn, fp, fn, tp = sk.confusion_matrix(truth, decided).ravel()
    found = {
        "AUROC": sk.roc_auc_score(truth, scores),
        "AUPR": sk.average_precision_score(truth, scores),
        "F1Score": sk.f1_score(truth, decided),
        "F1Max": (2 * precision * recall / np.maximum(precision + recall, 1e-300)).max(),
        "accuracy": sk.accuracy_score(truth, decided),
        "precision": sk.precision_score(truth, decided),
        "recall": sk.recall_score(truth, decided),
        "TPR": tp / (tp + fn),
        "TNR": tn / (tn + fp),
        "FPR_at_95TPR": fpr[tpr >= 0.95].min(),
    }
    return {f"{level}_{name}": float(value) for name, value in found.items()}


def pro_area(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """AUPRO as scikit-learn's ROC curve gives it when each region weighs one, whatever its size."""
    weights = np.ones(maps.shape)
    for mask, weight in zip(masks, weights, strict=True):
        regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for region in range(1, count + 1):
            weight[regions == region] = 1 / (regions == region).sum()
    fpr, tpr, _ = sk.roc_curve(masks.ravel(), maps.ravel(), sample_weight=weights.ravel(), drop_intermediate=False)
    below = fpr <= limit
    ends = np.append(fpr[below], limit), np.append(tpr[below], np.interp(limit, fpr, tpr))
    return float(sk.auc(*ends) / limit)


def check(run: Run) -> None:
    """Compare run.json with scikit-learn."""
    rows = run.scores("test")
    thresholds = run.record.thresholds
    maps, masks = run.maps("test"), run.masks("test")
    assert maps is not None
    assert masks is not None
    scores, truth = np.array([row.score for row in rows]), np.array([row.label for row in rows])
    expected = recomputed("image", scores, truth, thresholds.image.value)
    expected |= recomputed("pixel", np.asarray(maps).ravel(), masks.ravel(), thresholds.pixel.value)
    expected["pixel_AUPRO"] = pro_area(np.asarray(maps), masks)
    found = run.record.metrics
    assert set(expected) <= set(found)
    for name, value in expected.items():
        tolerance = 1e-7 if name == "pixel_AUPRO" else 1e-10
        assert found[name] == pytest.approx(value, abs=tolerance), name


@pytest.mark.long
@pytest.mark.real
def test_a_real_runs_metrics_are_scikit_learns(real: Path):
    backbone = load_backbone("resnet18", weights=real / "weights/resnet18.pth")
    model = Padim(backbone=backbone, layers=["layer1", "layer2"], n_features=50)
    data = Folder(root=real / "mvtec_bottle_512", name="bottle", train_batch_size=8, eval_batch_size=8, num_workers=0)
    Engine(enable_progress_bar=False).train(model=model, datamodule=data)
    check(Run.open(model.run_folder))
