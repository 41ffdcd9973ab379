"""Foreground masks against scikit-learn's components with OpenCV's morphology, and what tells objects from textures."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from defectlab.kernels.foreground import border_shares, centre_shares, foreground_masks, holds_object

cv2 = pytest.importorskip("cv2")


def blob(height: int, width: int, channels: int, seed: int, *, size: float = 0.25, strength: float = 30.0):
    """Features (C, h, w) of an object in the middle: noise, and there one direction more."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows / height - 0.5) ** 2 + (columns / width - 0.5) ** 2) < size**2
    direction = random.normal(size=channels)
    features = random.normal(scale=2.0, size=(channels, height, width))
    return features + strength * inside * (direction / np.linalg.norm(direction))[:, None, None]


def as_the_authors(features: np.ndarray) -> np.ndarray:
    channels, height, width = features.shape
    rows = features.reshape(channels, -1).T
    first = PCA(n_components=1, svd_solver="full").fit_transform(rows).reshape(height, width)
    mask = first > 10
    centre = mask[int(height * 0.2) : int(height * 0.8), int(width * 0.2) : int(width * 0.8)]
    if centre.sum() <= 0.35 * centre.size:
        mask = -first > 10
    square = np.ones((3, 3), np.uint8)
    return cv2.morphologyEx(cv2.dilate(mask.astype(np.uint8), square), cv2.MORPH_CLOSE, square).astype(bool)


@pytest.mark.parametrize(("height", "width", "channels"), [(12, 12, 20), (9, 14, 20), (6, 5, 64)])
def test_equals_the_authors_masks(height: int, width: int, channels: int):
    """Over both signs of the axis, masks that reach the border, and more channels than patches."""
    images = [
        blob(height, width, channels, seed, size=size, strength=strength)
        for seed, (size, strength) in enumerate([(0.25, 30), (0.3, -30), (0.45, 40), (0.2, 25), (0.25, 3), (0.6, 60)])
    ]
    expected = np.stack([as_the_authors(features) for features in images])
    found = foreground_masks(torch.from_numpy(np.stack(images)).float())
    assert np.array_equal(found.numpy(), expected)
    assert 0 < expected.mean() < 1


def test_objects_in_the_middle_pass_and_all_else_does_not():
    middle, texture = np.zeros((10, 10), bool), np.random.default_rng(0).random((10, 10)) < 0.6
    middle[3:7, 2:8] = True
    edge = np.zeros((10, 10), bool)
    edge[:, :5] = True
    masks = torch.from_numpy(np.stack([middle, texture, edge, np.ones_like(edge), np.zeros_like(edge)]))
    assert centre_shares(masks).tolist() == pytest.approx([24 / 36, float(texture[2:8, 2:8].mean()), 0.5, 1, 0])
    assert border_shares(masks)[2:].tolist() == pytest.approx([0.5, 1, 0])
    assert holds_object(masks).tolist() == [True, False, False, False, False]
