"""How often a small defect vanishes from the pixel grid, by area and by the nearest pixel, and what a perfect map gets.

    python -m benchmarks.mask_reduction [--masks 40] [--seed 0]

Masks of 1024 x 1024 pixels with one defect each, at random places and angles, come to a grid of 256 x 256. The perfect
map is the share of each cell that the defect covers. scikit-learn computes the average precision, not DefectLab.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.metrics import average_precision_score, precision_recall_curve

from defectlab.data.transforms.mask_reduction import reduce_mask

SIDE, GRID = 1024, 256
Mask = NDArray[np.bool_]


def square(rng: np.random.Generator, width: int) -> Mask:
    """Return a mask with a square of `width` pixels."""
    top, left = rng.integers(100, SIDE - 100, 2)
    mask = np.zeros((SIDE, SIDE), dtype=np.bool_)
    mask[top : top + width, left : left + width] = True
    return mask


def scratch(rng: np.random.Generator, width: int) -> Mask:
    """Return a mask with a straight line of 300 pixels, `width` pixels wide."""
    x, y = rng.uniform(350, SIDE - 350, 2)
    angle = rng.uniform(0, np.pi)
    image = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(image).line([(x, y), (x + 300 * np.cos(angle), y + 300 * np.sin(angle))], fill=1, width=width)
    return np.asarray(image) > 0


def figures(masks: list[Mask], method: str) -> tuple[float, float, float, float]:
    """Return the share of defects that vanish, the mean shift in source pixels, and a perfect map's AUPR and F1Max."""
    cell = SIDE // GRID
    cover = np.array([mask.reshape(GRID, cell, GRID, cell).mean((1, 3)) for mask in masks])
    reduced = np.array([reduce_mask(mask, (GRID, GRID), method) for mask in masks])
    shifts = [
        (np.argwhere(small) + 0.5).mean(0) * cell - (np.argwhere(mask) + 0.5).mean(0)
        for mask, small in zip(masks, reduced, strict=True)
        if small.any()
    ]
    vanished = 1 - len(shifts) / len(masks)
    shift = float(np.linalg.norm(np.mean(shifts, axis=0))) if shifts else float("nan")
    if not reduced.any():
        return vanished, shift, float("nan"), float("nan")
    precision, recall, _ = precision_recall_curve(reduced.ravel(), cover.ravel())
    f1 = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    return vanished, shift, float(average_precision_score(reduced.ravel(), cover.ravel())), float(f1)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=40, help="masks of each kind and width (default: 40)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kinds: dict[str, Callable[[np.random.Generator, int], Mask]] = {"square": square, "scratch": scratch}
    print("| defect | method | vanishes | shift, px | AUPR | F1Max |")
    print("|---|---|---:|---:|---:|---:|")
    for name, draw in kinds.items():
        for width in (1, 2, 3, 6):
            rng = np.random.default_rng(options.seed)
            masks = [draw(rng, width) for _ in range(options.masks)]
            for method in ("nearest", "area"):
                vanished, shift, aupr, f1 = figures(masks, method)
                print(f"| {name} {width} px | {method} | {vanished:.0%} | {shift:.1f} | {aupr:.2f} | {f1:.2f} |")


if __name__ == "__main__":
    main()
