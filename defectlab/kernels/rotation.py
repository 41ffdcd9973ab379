"""Rotation of images about their centre, with borders filled by reflection."""

import math
from typing import TypeVar

import torch
from torch.nn import functional as F

Coordinate = TypeVar("Coordinate", float, torch.Tensor)


def angles(count: int) -> list[float]:
    """Return `count` angles in degrees, 360 / `count` apart, beginning with 0.

    >>> angles(4)
    [0.0, 90.0, 180.0, 270.0]
    """
    return [360.0 * number / count for number in range(count)]


def rotate(images: torch.Tensor, degrees: float) -> torch.Tensor:
    """Rotate images (B, C, H, W) counter-clockwise about their centre; the size stays.

    Pixels are interpolated linearly. What lies outside the image is its reflection at the border pixels, as in OpenCV's
    `warpAffine` with its default border. Turns that map the grid of pixels onto itself are exact.
    """
    turns, rest = divmod(degrees % 360, 90)
    height, width = images.shape[-2:]
    if not rest and (height == width or turns in (0, 2)):
        return torch.rot90(images, int(turns), dims=(-2, -1))
    rows = torch.arange(height, dtype=torch.float64)
    columns = torch.arange(width, dtype=torch.float64)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    x, y = _source(x, y, degrees, ((width - 1) / 2, (height - 1) / 2))
    # grid_sample takes positions in [-1, 1], where -1 and 1 are the centres of the border pixels
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)  # (H, W, 2)
    grid = grid.to(images).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=True)


def point_before_rotation(point: tuple[float, float], degrees: float, size: tuple[int, int]) -> tuple[float, float]:
    """Return the point (x, y) of an image of `size` (height, width) that `rotate` moved to `point`.

    A point that the rotation filled by reflection comes from within the image too. In pixels from the left and the top
    edge, so that the first pixel's centre is at 0.5.

    >>> point_before_rotation((0.5, 0.5), 90, (4, 4))  # the top left corner was the top right one
    (3.5, 0.5)
    """
    height, width = size
    x, y = _source(point[0], point[1], degrees, (width / 2, height / 2))
    return _reflected(round(x, 6), width), _reflected(round(y, 6), height)


def _source(x: Coordinate, y: Coordinate, degrees: float, centre: tuple[float, float]) -> tuple[Coordinate, Coordinate]:
    """Return where in the image, before its rotation, the points (x, y) of the rotated one were."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    right, down = x - centre[0], y - centre[1]
    return cosine * right - sine * down + centre[0], sine * right + cosine * down + centre[1]


def _reflected(position: float, length: int) -> float:
    """Return a position reflected at the centres of the first and the last of `length` pixels."""
    if length == 1:
        return 0.5
    period = 2.0 * (length - 1)
    inside = (position - 0.5) % period
    return min(inside, period - inside) + 0.5
