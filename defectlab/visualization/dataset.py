"""Overview of a dataset from its manifest: counts and sizes as tables, labels and samples as pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from defectlab.data.datasets import load_image
from defectlab.data.manifest.manifest import SPLITS, Manifest
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.kernels.tiles import TileGrid
from defectlab.utils.table import Table, numbers, to_markdown
from defectlab.visualization.canvas import BAD, GOOD, new_figure, to_image
from defectlab.visualization.overlays import save_image
from defectlab_runtime import names
from defectlab_runtime.errors import InputError
from defectlab_runtime.images import as_uint8, read_image


def counts_table(manifest: Manifest) -> str:
    """Return the number of images by split and kind as a Markdown table."""
    counts = manifest.counts()
    kinds = sorted({kind for split in counts.values() for kind in split}, key=lambda kind: (kind != "good", kind))
    rows = [[split, *(counts[split].get(kind, 0) for kind in kinds)] for split in SPLITS]
    return to_markdown(Table(["split", *numbers(*kinds)], rows))


def size_table(manifest: Manifest) -> str:
    """Return a Markdown table with each folder's number of images and of distinct sizes, and ranges of the sides."""
    folders: dict[str, list[tuple[int, int]]] = {}
    for entry in manifest.entries:
        folders.setdefault(entry.path.rpartition("/")[0] or ".", []).append((entry.width, entry.height))
    rows = []
    for folder, sizes in folders.items():
        ranges = [f"{min(values)} to {max(values)}" for values in zip(*sizes, strict=True)]
        rows.append([folder, len(sizes), len(set(sizes)), *ranges])
    return to_markdown(Table(["folder", *numbers("images", "sizes", "width", "height")], rows))


def labels_figure(manifest: Manifest) -> Image.Image:
    """Return a bar chart of the number of good and of anomalous images in each split."""
    figure, (axis,) = new_figure((7, 3.2))
    counts: Mapping[str, Mapping[str, int]] = manifest.protocol.counts
    for shift, label, colour in ((-0.2, "good", GOOD), (0.2, "anomalous", BAD)):
        bars = axis.bar(np.arange(len(SPLITS)) + shift, [counts[split][label] for split in SPLITS], 0.38,
                        color=colour, label=label)  # fmt: skip
        axis.bar_label(bars)
    axis.set_xticks(range(len(SPLITS)), SPLITS)
    axis.set(ylabel="images", title=names.figure(f"{manifest.name}: labels"))
    axis.legend(frameon=False)
    return to_image(figure)


def samples_figure(manifest: Manifest, split: str, label: int, count: int = 8, seed: int = 42) -> Image.Image:
    """Return a picture of randomly drawn images of one split and label (0 good, 1 anomalous), each titled by its size.

    Raises:
        InputError: There are no such images.
    """
    entries = [entry for entry in manifest.split(split) if entry.label == label]
    if not entries:
        raise InputError(f"{manifest.name} has no {'anomalous' if label else 'good'} images in {split}.")
    chosen = np.random.default_rng(seed).permutation(len(entries))[:count]
    figure, axes = new_figure((1.7 * len(chosen), 1.9), columns=len(chosen))
    for axis, place in zip(axes, chosen, strict=True):
        axis.imshow(as_uint8(read_image(manifest.absolute(entries[place]), manifest.protocol.bit_depth)))
        axis.set_title(f"{entries[place].width} x {entries[place].height}", fontsize=9)
        axis.set_axis_off()
    figure.suptitle(names.figure(f"{split}: {entries[0].defect}"))
    return to_image(figure)


COLOURS = ((230, 60, 60), (60, 160, 230), (60, 190, 90), (240, 180, 40))
MAX_SIDE = 1024  # pixels of the picture's longer side


def tile_picture(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """Return an image as the model gets it, with outlines of the tiles and overlaps darkened: (H, W, 3) uint8.

    Raises:
        DataError: The image cannot be read.
        ValueError: These images are not tiled.
    """
    grid = preprocessing.grid
    if grid is None:
        raise ValueError("these images are not tiled")
    whole = preprocessing.resize()(load_image(path, preprocessing.bit_depth))
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
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(picture)


def save_tile_picture(path: Path, preprocessing: Preprocessing, target: Path) -> Path:
    """Write the `tile_picture` of an image to `target` as PNG, and return the path."""
    return save_image(target, tile_picture(path, preprocessing))


def _covered(grid: TileGrid) -> np.ndarray:
    counts = np.zeros(grid.whole)
    for top, left in grid.places:
        counts[top : top + grid.tile[0], left : left + grid.tile[1]] += 1
    return counts
