"""Pictures of scores: heat maps on one scale, overlays, contours."""

from pathlib import Path

import numpy as np
from PIL import Image

from defectlab_runtime.files import replacing
from defectlab_runtime.inferno import inferno

CONTOUR = (0, 255, 120)


def colour_map(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colour an (H, W) map from `low` (dark) to `high` (bright): (H, W, 3) uint8; NaN is grey."""
    steps = np.minimum(_unit(anomaly_map, low, high) * 256, 255).astype(np.intp)
    colours = inferno()[steps]
    colours[np.isnan(anomaly_map)] = 128
    return colours


def overlay(image: np.ndarray, anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Blend a coloured map over an (H, W, 3) uint8 image, more opaque where the map is higher."""
    alpha = 0.75 * _unit(anomaly_map, low, high)[..., None]
    return (image * (1 - alpha) + colour_map(anomaly_map, low, high) * alpha).astype(np.uint8)


def _unit(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale values from `low` .. `high` to 0 .. 1, clipped outside; NaN becomes 0."""
    span = high - low if high > low else 1.0
    return np.clip((np.nan_to_num(anomaly_map, nan=low) - low) / span, 0, 1)


def contour(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int] = CONTOUR) -> np.ndarray:
    """Draw the outline of an (H, W) bool mask on a copy of an (H, W, 3) uint8 image, wider on larger images."""
    width = max(1, round(min(mask.shape) / 130))
    inner = mask.copy()
    for _ in range(width):
        padded = np.pad(inner, 1, constant_values=False)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    drawn = image.copy()
    drawn[mask & ~inner] = colour
    return drawn


def save_image(path: Path, image: np.ndarray) -> Path:
    """Write an (H, W, 3) uint8 or (H, W) bool array as PNG, whole or not at all."""
    with replacing(path) as partial:
        Image.fromarray((image * np.uint8(255)) if image.dtype == bool else image).save(partial, format="PNG")
    return path
