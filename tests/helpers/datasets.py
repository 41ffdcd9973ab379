"""Small datasets on disk."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from defectlab.data.manifest.manifest import Manifest


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


def write_image(path, *, size=(8, 6), seed=None, **options):
    """Write a small picture of its own content (by its path's end, or by `seed`), width and height in `size`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    key = "/".join(Path(path).parts[-3:]).encode("utf-8", "surrogateescape")
    rng = np.random.default_rng(zlib.crc32(key) if seed is None else seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path, **options)
    return path


def write_mask(path, *, size=(8, 6), **options):
    """Write a mask with one defective quarter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[: size[1] // 2, : size[0] // 2] = 255
    Image.fromarray(mask).save(path, **options)
    return path


def mvtec(root, *, train=10, good=6, kinds=None, masks=True):
    """Write an MVTec folder; `kinds` maps a defect to its number of images."""
    for i in range(train):
        write_image(root / f"train/good/{i:03d}.png")
    for i in range(good):
        write_image(root / f"test/good/{i:03d}.png")
    for kind, count in (kinds if kinds is not None else {"crack": 4, "hole": 3}).items():
        for i in range(count):
            write_image(root / f"test/{kind}/{i:03d}.png")
            if masks:
                write_mask(root / f"ground_truth/{kind}/{i:03d}_mask.png")
    return root


def well_set(root: Path, lines: str | None = None, *, train: int = 10, spills: str = "proliv") -> Path:
    for number in range(train):
        write_image(root / f"train/{number}.png", size=(8 + number, 6))
    for number in range(3):
        write_image(root / spills / f"{number}.png")
    for name in ("a", "b b", "c"):
        write_image(root / f"test/imgs/{name}.png")
    text = "a.png 0\nb b.png 1\nc.png 0\n" if lines is None else lines
    (root / "test/test_annotation.txt").write_text(text, encoding="utf-8")
    return root


def paths_of(manifest: Manifest, split: str, label: int) -> list[str]:
    return [entry.path for entry in manifest.split(split) if entry.label == label]
