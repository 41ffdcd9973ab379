"""Pictures of scores: heat maps on one scale, masks, contours, panels. numpy and Pillow only."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CONTOUR = (0, 255, 120)


def colour_map(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colour an (H, W) map from `low` (dark) to `high` (bright): (H, W, 3) uint8; NaN is grey."""
    from matplotlib import colormaps

    colours = (colormaps["inferno"](_unit(anomaly_map, low, high))[..., :3] * 255).astype(np.uint8)
    colours[np.isnan(anomaly_map)] = 128
    return colours


def overlay(image: np.ndarray, anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Lay a coloured map over an (H, W, 3) uint8 image, clearer where the map is higher."""
    alpha = 0.75 * _unit(anomaly_map, low, high)[..., None]
    return (image * (1 - alpha) + colour_map(anomaly_map, low, high) * alpha).astype(np.uint8)


def _unit(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale `low` .. `high` to 0 .. 1, cut off outside; NaN is 0."""
    span = high - low if high > low else 1.0
    return np.clip((np.nan_to_num(anomaly_map, nan=low) - low) / span, 0, 1)


def contour(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int] = CONTOUR) -> np.ndarray:
    """Draw the outline of an (H, W) bool mask on a copy of an (H, W, 3) uint8 image, wider on larger images."""
    width = max(1, round(min(mask.shape) / 200))
    inner = mask.copy()
    for _ in range(width):
        padded = np.pad(inner, 1, constant_values=False)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    drawn = image.copy()
    drawn[mask & ~inner] = colour
    return drawn


def save_image(path: Path, image: np.ndarray) -> Path:
    """Write an (H, W, 3) uint8 or (H, W) bool array as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image * np.uint8(255)) if image.dtype == bool else image).save(path)
    return path


def panel(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], captions: Sequence[str], tile: int = 224
) -> np.ndarray:
    """Arrange images in rows under column titles, each row with a caption: one (H, W, 3) uint8 picture."""
    bar = 20
    picture = Image.new("RGB", (tile * len(titles), bar + (tile + bar) * len(rows)), "white")
    draw = ImageDraw.Draw(picture)
    for column, title in enumerate(titles):
        draw.text((column * tile + 4, 4), title, fill="black")
    for number, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        top = bar + number * (tile + bar)
        draw.text((4, top + 4), caption, fill="black")
        for column, image in enumerate(row):
            square = Image.fromarray(image).resize((tile - 4, tile - 4), Image.Resampling.BILINEAR)
            picture.paste(square, (column * tile + 2, top + bar))
    return np.asarray(picture)
