"""Shared fixtures: a project root of its own for each test, tiny images, a tiny backbone, real data where it is."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test out of the checkout: results, weights and data resolve into its own folder."""
    for name in ("DEFECTLAB_RESULTS", "DEFECTLAB_WORKBOOK", "DEFECTLAB_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real images and weights."""
    folder = os.environ.get("DEFECTLAB_REAL")
    if not folder:
        pytest.skip("DEFECTLAB_REAL is not set: no real images here")
    return Path(folder)


def make_parts(root: Path, *, train: int = 8, good: int = 4, bad: int = 4, size: int = 64, masks: bool = True) -> Path:
    """Write a tiny MVTec-style dataset: noisy grey squares, the bad ones with a bright blot, marked exactly."""
    random = np.random.default_rng(0)
    for folder, count in (("train/good", train), ("test/good", good), ("test/blot", bad)):
        for number in range(count):
            pixels = random.normal(110, 12, (size, size, 3)).clip(0, 255)
            if folder == "test/blot":
                top, left = random.integers(8, size - 24, 2)
                pixels[top : top + 14, left : left + 14] = (250, 240, 60)
                if masks:
                    mask = np.zeros((size, size), dtype=np.uint8)
                    mask[top : top + 14, left : left + 14] = 255
                    _save(root / "ground_truth/blot" / f"{number:03d}_mask.png", mask)
            _save(root / folder / f"{number:03d}.png", pixels.astype(np.uint8))
    return root


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny dataset with masks; read only."""
    return make_parts(tmp_path_factory.mktemp("data") / "parts")
