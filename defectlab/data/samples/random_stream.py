"""Seeded random numbers that are the same on every machine and Python version."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class RandomStream:
    """A stream of random numbers named by its purpose, so that adding one image changes no other.

    Only `random.Random.random` is used: Python guarantees its sequence for a seed, which neither `shuffle` nor
    NumPy's generators promise across versions.

    >>> RandomStream(42, "digits").integer(1000) == RandomStream(42, "digits").integer(1000)
    True
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._random = random.Random(f"{seed}/{purpose}")

    def uniform(self, low: float, high: float) -> float:
        """Draw a number uniformly from [low, high)."""
        return low + (high - low) * self._random.random()

    def integer(self, stop: int) -> int:
        """Draw from 0 .. stop - 1."""
        return int(stop * self._random.random())

    def pick(self, items: Sequence[T]) -> T:
        """Draw one of `items` with equal probability."""
        return items[self.integer(len(items))]

    def flag(self) -> bool:
        """Draw True or False, evenly."""
        return self._random.random() < 0.5

    def direction(self) -> tuple[float, float]:
        """Draw a unit vector (x, y).

        The half-angle form needs no sine: its last digit would depend on the machine's maths library.
        """
        t = self.uniform(-1, 1)
        x, y = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        for _ in range(self.integer(4)):
            x, y = -y, x
        return x, y

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return `items` in a drawn order."""
        keys = [self._random.random() for _ in items]
        return [item for _, item in sorted(zip(keys, items, strict=True), key=lambda pair: pair[0])]
