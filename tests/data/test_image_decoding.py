"""Limits of what is decoded."""

import numpy as np
from PIL import Image

from defectlab.data.images import read_image

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def saved(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def test_large_pictures_are_no_bombs(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", COLOURS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # 54 pixels would be refused
    assert read_image(path).shape == (6, 9, 3)
    assert Image.MAX_IMAGE_PIXELS >= 1 << 30
