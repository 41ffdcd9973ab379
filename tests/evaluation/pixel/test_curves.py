"""Drawn curves over pixels: scikit-learn's points, and the areas of the exact metrics."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import precision_recall_curve, roc_curve

from defectlab.evaluation.pixel.curves import pixel_curves
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages
from defectlab.evaluation.pixel.metrics import pixel_metrics


def images(levels: int | None, size: int = 16, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    masks = ndimage.gaussian_filter(draw.normal(size=(count, size, size)), (0, 2, 2)) > 0.1
    masks[0] = False
    maps = draw.normal(size=masks.shape) + 1.2 * masks
    return (np.round(maps * levels) if levels else maps).astype(np.float32), masks


def area(points: tuple[np.ndarray, np.ndarray], limit: float = 1.0) -> float:
    x, y = points
    inside = x < limit
    ends = np.append(x[inside], limit), np.append(y[inside], np.interp(limit, x, y))
    return float(np.trapezoid(ends[1], ends[0]) / limit)


def test_points_are_scikit_learns():
    maps, masks = images(levels=3)
    found = pixel_curves(ArrayImages(maps, masks))
    fpr, tpr, _ = roc_curve(masks.ravel(), maps.ravel(), drop_intermediate=False)
    assert np.transpose(found["roc"]) == pytest.approx(np.transpose([fpr, tpr]))
    precision, recall, _ = precision_recall_curve(masks.ravel(), maps.ravel())
    assert np.transpose(found["pr"]) == pytest.approx(np.transpose([recall, precision])[:-1][::-1])


@pytest.mark.parametrize(("levels", "size"), [(1, 16), (8, 16), (None, 16), (None, 120)])
def test_areas_are_the_metrics(levels: int | None, size: int):
    source = ArrayImages(*images(levels, size))
    found, exact = pixel_curves(source), pixel_metrics(source)
    assert found["roc"][0].size < 1300
    assert area(found["roc"]) == pytest.approx(exact["AUROC"].value, abs=1e-3)
    assert area(found["pro"], 0.3) == pytest.approx(exact["AUPRO"].value, abs=1e-3)
    recall, precision = found["pr"]
    assert np.diff(recall, prepend=0) @ precision == pytest.approx(exact["AUPR"].value, abs=2e-3)
    for x, y in (found["roc"], found["pro"]):
        assert (x[0], y[0], x[-1]) == (0, 0, 1)
        assert y[-1] == pytest.approx(1)
        assert (np.diff(x) >= 0).all()
        assert (np.diff(y) >= 0).all()
