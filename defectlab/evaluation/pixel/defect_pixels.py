"""Defect pixels as sorted whole numbers: score in the upper 32 bits, connected region in the lower ones."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Scores = NDArray[np.float32]
Packed = NDArray[np.uint64]

LEADING_BITS = 16  # ranges of scores are cut at these bits of a float32


@dataclass(frozen=True)
class DefectPixels:
    """Defect pixels by score and region.

    Attributes:
        packed: (p,) pairs of score and region, each once, ascending.
        pixels: (p,) how many pixels each stands for.
        scores: (k,) distinct scores.
        first: (k + 1,) position of each score's first pair, then p.
    """

    packed: Packed
    pixels: Counts
    scores: Scores
    first: Counts

    @classmethod
    def of(cls, packed: Packed, pixels: Counts | None = None) -> "DefectPixels":
        """Build from packed pairs in any order and how many pixels each stands for; None: each is one pixel."""
        packed, pixels = merge(packed, pixels)
        scores = _unpack_scores(packed)
        starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]])[: scores.size])
        return cls(packed, pixels, scores[starts], np.append(starts, scores.size))

    def slices(self, size: int) -> Iterator["DefectPixels"]:
        """Yield the pixels of `size` scores at a time, ascending."""
        for start in range(0, self.scores.size, size):
            first = self.first[start : start + size + 1]
            pairs = slice(int(first[0]), int(first[-1]))
            yield DefectPixels(
                self.packed[pairs], self.pixels[pairs], self.scores[start : start + size], first - first[0]
            )

    @property
    def step(self) -> Counts:
        """Position (p,) of each pair's score in `scores`."""
        return np.repeat(np.arange(self.scores.size), np.diff(self.first))

    @property
    def region(self) -> Counts:
        """Number (p,) of each pair's region."""
        return (self.packed & np.uint64(0xFFFFFFFF)).astype(np.int64)


def pack(scores: Scores, regions: Packed) -> Packed:
    """Put score and region into one whole number that sorts as the score does, then as the region."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0, which it equals
    ordered = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))
    return (ordered.astype(np.uint64) << np.uint64(32)) | regions


def _unpack_scores(packed: Packed) -> Scores:
    ordered = (packed >> np.uint64(32)).astype(np.uint32)
    bits = np.where(ordered >> np.uint32(31), ordered & np.uint32((1 << 31) - 1), ~ordered)
    return bits.view(np.float32)


def merge(packed: Packed, pixels: Counts | None = None) -> tuple[Packed, Counts]:
    """Return each packed pair once, ascending, and how many pixels it stands for; None: each entry is one pixel."""
    if pixels is None:
        return np.unique(packed, return_counts=True)
    distinct, which = np.unique(packed, return_inverse=True)
    return distinct, sums(which, pixels, distinct.size)


def leading_counts(packed: Packed) -> Counts:
    """Count pixels by the leading bits of their scores: (2 ** LEADING_BITS,)."""
    keys = (packed >> np.uint64(64 - LEADING_BITS)).astype(np.int64)
    return np.bincount(keys, minlength=1 << LEADING_BITS)


def score_ranges(leading: Counts, most: int) -> Iterator[tuple[float, float]]:
    """Part the scores into ranges low <= score < high (NaN: no end) of at most `most` pixels, if they can be.

    Args:
        leading: From `leading_counts`.
        most: Pixels of a range.
    """
    starts, held = [], most
    for place in np.flatnonzero(leading):
        if held + leading[place] > most:
            starts.append(place)
            held = 0
        held += int(leading[place])
    edges = _unpack_scores((np.array(starts[1:], dtype=np.uint64)) << np.uint64(64 - LEADING_BITS)).tolist()
    if starts:
        yield from zip([-np.inf, *edges], [*edges, np.nan], strict=True)


def sums(which: Counts, values: NDArray[np.generic], size: int) -> Counts:
    """Add up whole numbers by group; float64 holds them exactly up to 2 ** 53."""
    return np.bincount(which, weights=values, minlength=size).astype(np.int64)
