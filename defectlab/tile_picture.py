"""The tiles of a training image, drawn on it."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from defectlab.data.folder import load_image
from defectlab.kernels.tiles import TileGrid
from defectlab.preprocessing import Preprocessing
from defectlab.results.plots import save_image

COLOURS = ((230, 60, 60), (60, 160, 230), (60, 190, 90), (240, 180, 40))
LARGEST = 1024  # pixels of the picture's longer side


def tile_picture(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """Return an image as the model gets it, with each tile's outline and where they overlap darker: (H, W, 3) uint8.

    Raises:
        DataError: The image cannot be read.
        ValueError: These images are not tiled.
    """
    grid = preprocessing.grid
    if grid is None:
        raise ValueError("these images are not tiled")
    whole = preprocessing.resize()(load_image(path))
    pixels = whole.numpy().transpose(1, 2, 0)
    shown = (pixels * (1 - 0.25 * (_covered(grid) > 1))[..., None] * 255).round().clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(shown)
    draw = ImageDraw.Draw(picture)
    height, width = grid.tile
    line = max(1, max(picture.size) // 300)
    for number, (top, left) in enumerate(grid.places):
        row, column = divmod(number, len(grid.columns))
        inset = line * (row % 2 + 2 * (column % 2))  # neighbours' outlines lie side by side
        box = (left + inset, top + inset, left + width - 1 - inset, top + height - 1 - inset)
        draw.rectangle(box, outline=COLOURS[row % 2 + 2 * (column % 2)], width=line)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)


def save_tile_picture(path: Path, preprocessing: Preprocessing, target: Path) -> Path:
    """Write `tile_picture` of an image."""
    return save_image(target, tile_picture(path, preprocessing))


def _covered(grid: TileGrid) -> np.ndarray:
    counts = np.zeros(grid.whole)
    for top, left in grid.places:
        counts[top : top + grid.tile[0], left : left + grid.tile[1]] += 1
    return counts
