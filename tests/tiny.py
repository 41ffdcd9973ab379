"""A dataset of a few tiny images."""

from pathlib import Path

import numpy as np
from PIL import Image


def make_parts(
    root: Path, *, train: int = 8, good: int = 4, bad: int = 4, size: int = 64, masks: bool = True, defect: str = "blot"
) -> Path:
    """Write a tiny MVTec-style dataset: noisy grey squares, the bad ones with a bright blot, marked exactly."""
    random = np.random.default_rng(0)
    for folder, count in (("train/good", train), ("test/good", good), (f"test/{defect}", bad)):
        for number in range(count):
            pixels = random.normal(110, 12, (size, size, 3)).clip(0, 255)
            if folder == f"test/{defect}":
                top, left = random.integers(8, size - 24, 2)
                pixels[top : top + 14, left : left + 14] = (250, 240, 60)
                if masks:
                    mask = np.zeros((size, size), dtype=np.uint8)
                    mask[top : top + 14, left : left + 14] = 255
                    _save(root / "ground_truth" / defect / f"{number:03d}_mask.png", mask)
            _save(root / folder / f"{number:03d}.png", pixels.astype(np.uint8))
    return root


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
