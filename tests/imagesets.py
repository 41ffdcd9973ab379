"""Tiny datasets on disk, for tests of the data layer."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image


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
