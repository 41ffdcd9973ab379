"""AUPRO against its definition."""

import numpy as np
import pytest
from scipy import ndimage

from defectlab.evaluation.pixel.metrics import aupro


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
