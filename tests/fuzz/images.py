"""Damaged and lying image files, through the reader of images, of masks and of `data check`."""

import random
from pathlib import Path

import numpy as np
from PIL import Image

from defectlab.data.images import read_image
from tests.fuzz.mutations import damage
from tests.fuzz.target import Target

SUFFIXES = (".png", ".jpg", ".bmp", ".tif", ".webp")


def prepare(good: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    for suffix in SUFFIXES:
        Image.fromarray(pixels).save(good / f"colour{suffix}")


def attack(random: random.Random, good: Path, work: Path) -> None:
    source = random.choice(sorted(good.iterdir()))
    path = work / source.name
    path.write_bytes(damage(random, source.read_bytes()))
    read_image(path)


TARGET = Target("images", prepare, attack)
