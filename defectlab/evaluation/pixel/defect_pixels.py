"""Defect pixels as sorted 64-bit integers: score in the upper 32 bits, connected region in the lower ones."""

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
    """Numbers of defect pixels for each pair of score and connected region, in ascending order.

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
        """Build from packed pairs in any order and the number of pixels of each pair; None means one pixel each."""
        packed, pixels = merge(packed, pixels)
        scores = _unpack_scores(packed)
        starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]])[: scores.size])
        return cls(packed, pixels, scores[starts], np.append(starts, scores.size))

    def slices(self, size: int) -> Iterator["DefectPixels"]:
        """Yield the pixels of up to `size` distinct scores at a time, in ascending order."""
        for start in range(0, self.scores.size, size):
            first = self.first[start : start + size + 1]
            pairs = slice(int(first[0]), int(first[-1]))
            yield DefectPixels(
                self.packed[pairs], self.pixels[pairs], self.scores[start : start + size], first - first[0]
            )

    @property
    def step(self) -> Counts:
        """Index (p,) into `scores` of each pair's score."""
        return np.repeat(np.arange(self.scores.size), np.diff(self.first))

    @property
    def region(self) -> Counts:
        """Region number (p,) of each pair."""
        return (self.packed & np.uint64(0xFFFFFFFF)).astype(np.int64)


def pack(scores: Scores, regions: Packed) -> Packed:
    """Pack score and region into one integer that sorts by score, then by region."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0, which it equals
    ordered = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))
    return (ordered.astype(np.uint64) << np.uint64(32)) | regions


def _unpack_scores(packed: Packed) -> Scores:
    ordered = (packed >> np.uint64(32)).astype(np.uint32)
    bits = np.where(ordered >> np.uint32(31), ordered & np.uint32((1 << 31) - 1), ~ordered)
    return bits.view(np.float32)


def merge(packed: Packed, pixels: Counts | None = None) -> tuple[Packed, Counts]:
    """Return the distinct packed pairs, ascending, and the pixels of each; `pixels` None means one pixel per entry."""
    if pixels is None:
        return np.unique(packed, return_counts=True)
    distinct, which = np.unique(packed, return_inverse=True)
    return distinct, sums(which, pixels, distinct.size)


def leading_counts(packed: Packed) -> Counts:
    """Count packed pixels by the leading bits of their scores: (2 ** LEADING_BITS,)."""
    keys = (packed >> np.uint64(64 - LEADING_BITS)).astype(np.int64)
    return np.bincount(keys, minlength=1 << LEADING_BITS)


def score_ranges(leading: Counts, most: int) -> Iterator[tuple[float, float]]:
    """Split the scores into ranges low <= score < high (NaN: no upper end) of at most `most` pixels where possible.

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
    """Sum whole numbers by group index; sums are exact up to 2 ** 53, as they are computed in float64."""
    return np.bincount(which, weights=values, minlength=size).astype(np.int64)
