"""The sample `digits`: real handwritten digits that ship with scikit-learn; one digit is good, the others are not."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from defectlab.data.samples.random_stream import RandomStream
from defectlab.data.samples.store import Picture
from defectlab_runtime.errors import OptionError

SIDE = 64
TEST_SHARE = 3  # one good image in three is kept for the test

SOURCE = {
    "name": "digits",
    "shows": "handwritten digits of 13 writers, 8 x 8 pixels",
    "origin": "E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits (1998), UCI repository",
    "licence": "CC BY 4.0",
    "file": "sklearn/datasets/data/digits.csv.gz",
}


def check(good_number: int, limit_data: int) -> None:
    """Validate the options of the sample `digits`.

    Raises:
        OptionError: `good_number` is no digit, or `limit_data` no positive whole number.
    """
    for name, value, low, high in (("good_number", good_number, 0, 9), ("limit_data", limit_data, 1, None)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < low or (high is not None and value > high):
            allowed = f"{low} .. {high}" if high is not None else f"{low} or more"
            raise OptionError(f"digits: {name} must be a whole number, {allowed}, got {value!r}.")


def pictures(seed: int, good_number: int = 9, limit_data: int = 100) -> Iterator[Picture]:
    """Yield train/good, test/good and test/<digit>: every good digit, at most `limit_data` of each other one.

    The 8 x 8 values 0 .. 16 become 64 x 64 greys 0 .. 255, enlarged bicubically.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # (N, 8, 8) float, labels (N,)
    images, labels = bunch.images, bunch.target
    for digit in (good_number, *(other for other in range(10) if other != good_number)):
        rows = RandomStream(seed, f"digits/{digit}").shuffled([int(row) for row in np.flatnonzero(labels == digit)])
        if digit == good_number:
            held_out = len(rows) // TEST_SHARE
            folders = {"train/good": rows[held_out:], "test/good": rows[:held_out]}
        else:
            folders = {f"test/{digit}": rows[:limit_data]}
        for folder, chosen in folders.items():
            for index, row in enumerate(chosen):
                yield Picture(f"{folder}/{index:03d}.png", enlarge(images[row]), {"row": row})


def enlarge(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return an image (8, 8) of values 0 .. 16 as greys (64, 64), 0 .. 255."""
    from PIL import Image

    grey = np.rint(image * (255 / 16)).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
