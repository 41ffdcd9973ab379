"""Pictures of an image with its map beside each other, and pictures as files, with errors of the disk explained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from defectlab.utils.files import replacing
from defectlab_runtime import overlays
from defectlab_runtime.overlays import colour_map, contour, overlay

TRUTH = (255, 60, 220)
Outline = tuple[np.ndarray, tuple[int, int, int]]  # (H, W) bool mask and the colour of its outline


def four_views(
    image: np.ndarray, anomaly_map: np.ndarray, low: float, high: float, outlines: Sequence[Outline]
) -> list[np.ndarray]:
    """Return an (H, W, 3) uint8 image, its coloured (H, W) map, the overlay and the image with outlines of masks."""
    outlined = image
    for mask, colour in outlines:
        outlined = contour(outlined, mask, colour)
    return [image, colour_map(anomaly_map, low, high), overlay(image, anomaly_map, low, high), outlined]


def save_image(path: Path, image: np.ndarray) -> Path:
    """Write an (H, W, 3) uint8 or (H, W) bool array as PNG."""
    with replacing(path) as partial:
        overlays.save_image(partial, image)
    return path
