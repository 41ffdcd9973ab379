"""Rotation of images against scipy's interpolation, OpenCV's turn and borders, and points traced back by pixels."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from defectlab.kernels.rotation import angles, point_before_rotation, rotate


def noise(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def by_scipy(image: np.ndarray, degrees: float) -> np.ndarray:
    """One channel (H, W) rotated counter-clockwise about its centre, mirrored at the border pixels, in float64."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.array([[cosine, sine], [-sine, cosine]])  # from (row, column) of the result to that of the image
    centre = (np.array(image.shape) - 1) / 2
    return affine_transform(image, matrix, centre - matrix @ centre, order=1, mode="mirror")


@pytest.mark.parametrize("size", [(32, 32), (24, 41)], ids=str)
@pytest.mark.parametrize("degrees", [0, 45, 90, 180, 225, 300, 12.5])
def test_equals_scipy(size: tuple[int, int], degrees: float):
    images = noise(*size)
    rotated = rotate(images, degrees)
    assert rotated.shape == images.shape
    for channel, source in zip(rotated.flatten(0, 1), images.double().flatten(0, 1), strict=True):
        assert channel.numpy() == pytest.approx(by_scipy(source.numpy(), degrees), abs=2e-5)


def test_turns_and_fills_as_opencv():
    """OpenCV's weights are multiples of 1/32: hence a smooth image."""
    cv2 = pytest.importorskip("cv2")
    rows, columns = np.mgrid[:40, :30].astype(np.float32)
    image = np.sin(rows / 9) + np.cos(columns / 7 + rows / 20)
    matrix = cv2.getRotationMatrix2D((14.5, 19.5), 45, 1.0)
    expected = cv2.warpAffine(image, matrix, (30, 40), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_DEFAULT)
    assert rotate(torch.from_numpy(image)[None, None], 45)[0, 0].numpy() == pytest.approx(expected, abs=5e-3)


def test_quarter_turns_of_squares_and_half_turns_are_exact():
    square, wide = noise(16, 16), noise(8, 12)
    assert torch.equal(rotate(square, 90), square.transpose(-2, -1).flip(-2))
    assert torch.equal(rotate(wide, 180), wide.flip(-2, -1))
    assert torch.equal(rotate(wide, 360), wide)


@pytest.mark.parametrize("degrees", angles(8)[1:])
def test_a_point_is_traced_back_to_the_pixel_it_came_from(degrees: float):
    """Images whose values are their own coordinates; a quarter of the area comes from reflections."""
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    rotated = rotate(torch.stack([columns, rows])[None], degrees)[0]
    for row, column in ((0, 0), (3, 17), (10, 9), (19, 2)):
        x, y = point_before_rotation((column + 0.5, row + 0.5), degrees, (20, 20))
        near_mirror = min(x - 0.5, y - 0.5, 19.5 - x, 19.5 - y) < 1  # there a pixel is no linear function of its place
        expected = rotated[:, row, column].tolist()
        assert (x - 0.5, y - 0.5) == pytest.approx(expected, abs=0.5 if near_mirror else 1e-3)
