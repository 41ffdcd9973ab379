"""Exact pixel metrics of any number of images, within a bound on memory: pixels are counted block by block.

All metrics follow from one thing: how many good pixels score below, and how many up to, each distinct score of the
defect pixels. These counts add up over blocks of images, so a block is counted and dropped. Defect pixels that
are too many are taken range of scores by range of scores. Every sum is of whole numbers, or runs in the order of the
scores, so the result does not depend on the blocks, to the last digit.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from defectlab.evaluation.metrics import Confusion, round_down
from defectlab.evaluation.pixel.counting import count_scores
from defectlab.evaluation.pixel.maps_and_masks import PixelImages, blocks_of

logger = logging.getLogger(__name__)

MEMORY = 3 << 29  # bytes: 1.5 GiB
BYTES_PER_PIXEL = 12  # of a block: score, mask, and the scores close to a defect pixel's
BYTES_PER_DEFECT_PIXEL = 48  # score and region packed, distinct scores, counts at each
SLICE = 1 << 18  # distinct scores handled at one time
READ = 1 << 18  # pixels read at one time, where the bound on memory allows: they stay in the cache
NEIGHBOURS = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner are one region
_KEY_BITS = 16  # ranges of scores are cut at these leading bits of a float32

Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Steps:
    """Defect pixels of one range of scores, by distinct score (k, ascending), among all pixels.

    Attributes:
        scores: (k,) distinct scores of defect pixels.
        ties: (k,) defect pixels of this score.
        before: (k,) defect pixels of a lower score, of any range.
        below: (k,) good pixels of a lower score.
        upto: (k,) good pixels of a lower score or the same.
        step: (p,) position in `scores` of each entry of `region`.
        region: (p,) number of a connected region that has defect pixels of this score.
        pixels: (p,) how many it has.
    """

    scores: Scores
    ties: Counts
    before: Counts
    below: Counts
    upto: Counts
    step: Counts
    region: Counts
    pixels: Counts


@dataclass
class Survey:
    """What one reading of all pixels tells: how many there are, at which threshold, in which regions.

    `sizes` (r,) pixels of each connected region; `leading` defect pixels by the leading bits of their score.
    """

    defect: int
    good: int
    nan: int
    confusion: Confusion | None
    sizes: Counts
    leading: Counts
    packed: NDArray[np.uint64] | None


class Blocks:
    """The pixels of images, block by block within `memory` bytes.

    A block, and defect pixels of one range, take half each. An image is never parted, and scores of one range are never
    fewer than those that share their leading 16 bits: at most 65,536 for each region.
    """

    def __init__(self, images: PixelImages, memory: int = MEMORY) -> None:
        self.images = images
        most = max(memory // 2 // BYTES_PER_PIXEL, 1)
        self.blocks = list(blocks_of(images.sizes, min(most, READ)))
        self.most_defect_pixels = max(memory // 2 // BYTES_PER_DEFECT_PIXEL, 1)
        self._pixels = sum(height * width for height, width in images.sizes)
        if self._pixels > most:
            logger.info(
                "Pixel metrics: %d million pixels in %d blocks, within %d MiB",
                round(self._pixels / 1e6),
                len(self.blocks),
                memory >> 20,
            )

    def survey(self, threshold: float | None) -> Survey:
        """Read every pixel once: count them, also those above the threshold, and find the connected regions."""
        limit = None if threshold is None or np.isnan(threshold) else round_down(threshold, np.float32)
        defect = good = nan = above = hits = regions = 0
        sizes: list[Counts] = []
        leading = np.zeros(1 << _KEY_BITS, dtype=np.int64)
        kept: list[NDArray[np.uint64]] | None = []
        for block in self.blocks:
            scores, marks = self._scores(block), [self.images.mask(index) for index in block]
            marked = np.concatenate([mask.ravel() for mask in marks])
            found = scores[marked]
            defect += found.size
            good += scores.size - found.size
            nan += int(np.isnan(scores).sum()) if np.isnan(scores.min(initial=0)) else 0
            if limit is not None:
                above += int(np.count_nonzero(scores > limit))
                hits += int(np.count_nonzero(found > limit))
            numbers, block_sizes = region_numbers(marks, regions)
            regions += block_sizes.size
            sizes.append(block_sizes)
            packed = _pack(found, numbers)
            leading += np.bincount((packed >> np.uint64(64 - _KEY_BITS)).astype(np.int64), minlength=1 << _KEY_BITS)
            if kept is not None:
                kept.append(packed)
                kept = kept if defect <= self.most_defect_pixels else None
        confusion = None if limit is None else Confusion(hits, above - hits, defect - hits, good - above + hits)
        whole = None if kept is None else np.concatenate([*kept, np.empty(0, np.uint64)])
        none = np.empty(0, dtype=np.int64)
        return Survey(defect, good, nan, confusion, np.concatenate([*sizes, none]), leading, whole)

    def steps(self, survey: Survey) -> Iterator[Steps]:
        """Yield the defect pixels among the good ones, slice of scores by slice of scores, ascending."""
        before = 0
        for low, high in _ranges(survey.leading, self.most_defect_pixels):
            packed, alike = self._defect_pixels(survey, low, high)
            scores = _unpack(packed)
            first = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
            distinct = scores[first]
            del scores
            below, upto = self._count(distinct)
            ends = np.append(first[1:], packed.size)
            for start in range(0, distinct.size, SLICE):
                part = slice(start, start + SLICE)
                here = slice(int(first[start]), int(ends[part][-1]))
                step = np.repeat(np.arange(distinct[part].size), ends[part] - first[part])
                pixels = np.ones(step.size, dtype=np.int64) if alike is None else alike[here]
                ties = _sums(step, pixels, distinct[part].size)
                passed = before + np.cumsum(ties)
                lower = passed - ties
                region = (packed[here] & np.uint64(0xFFFFFFFF)).astype(np.int64)
                yield Steps(distinct[part], ties, lower, below[part] - lower, upto[part] - passed, step, region, pixels)
                before = int(passed[-1])

    def _defect_pixels(self, survey: Survey, low: float, high: float) -> tuple[NDArray[np.uint64], Counts | None]:
        """Return defect pixels with low <= score < high, packed and sorted, and how many are alike (None: each one)."""
        if survey.packed is not None:
            survey.packed.sort()
            return survey.packed, None
        packed, alike = np.empty(0, dtype=np.uint64), None
        regions = 0
        for block in self.blocks:
            marks = [self.images.mask(index) for index in block]
            found = np.concatenate([self.images.map(i)[mask] for i, mask in zip(block, marks, strict=True)])
            numbers, sizes = region_numbers(marks, regions)
            regions += sizes.size
            inside = _inside(found, low, high)
            more = _pack(found[inside], numbers[inside])
            packed = np.concatenate([packed, more])
            if alike is not None:
                alike = np.concatenate([alike, np.ones(more.size, dtype=np.int64)])
            if packed.size > self.most_defect_pixels:
                packed, alike = _alike(packed, alike)
        if alike is None:
            packed.sort()
            return packed, None
        order = np.argsort(packed)
        return packed[order], alike[order]

    def _count(self, distinct: Scores) -> tuple[Counts, Counts]:
        """Return how many pixels of all images score below each of the distinct scores, and up to it."""
        return count_scores(self.blocks, self._scores, distinct, self._pixels)

    def _scores(self, block: range) -> Scores:
        sizes = self.images.sizes
        scores = np.empty(sum(sizes[index][0] * sizes[index][1] for index in block), dtype=np.float32)
        start = 0
        for index in block:
            one = self.images.map(index)
            scores[start : start + one.size] = one.ravel()
            start += one.size
        return scores


def region_numbers(masks: list[Bools], first: int) -> tuple[NDArray[np.uint64], Counts]:
    """Number the connected regions from `first` on: that of each marked pixel, row by row, and the size of each."""
    numbers: list[NDArray[np.uint64]] = [np.empty(0, dtype=np.uint64)]
    sizes: list[Counts] = [np.empty(0, dtype=np.int64)]
    for mask in masks:
        rows = np.flatnonzero(mask.any(axis=1))
        if not rows.size:
            continue
        columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
        part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        labels, count = ndimage.label(part, structure=NEIGHBOURS)
        inside = labels[part]
        numbers.append((inside + (first - 1)).astype(np.uint64))
        sizes.append(np.bincount(inside, minlength=count + 1)[1:])
        first += count
    return np.concatenate(numbers), np.concatenate(sizes)


def _pack(scores: Scores, regions: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Put score and region into one whole number that sorts as the score does, then as the region."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0, which it equals
    ordered = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))
    return (ordered.astype(np.uint64) << np.uint64(32)) | regions


def _unpack(packed: NDArray[np.uint64]) -> Scores:
    ordered = (packed >> np.uint64(32)).astype(np.uint32)
    bits = np.where(ordered >> np.uint32(31), ordered & np.uint32((1 << 31) - 1), ~ordered)
    return bits.view(np.float32)


def _alike(packed: NDArray[np.uint64], pixels: Counts | None) -> tuple[NDArray[np.uint64], Counts]:
    distinct, which = np.unique(packed, return_inverse=True)
    return distinct, _sums(which, np.ones(packed.size) if pixels is None else pixels, distinct.size)


def _sums(which: Counts, values: NDArray[np.generic], size: int) -> Counts:
    """Add up whole numbers by group; float64 holds them exactly up to 2 ** 53."""
    return np.bincount(which, weights=values, minlength=size).astype(np.int64)


def _ranges(leading: Counts, most: int) -> Iterator[tuple[float, float]]:
    """Part the scores into ranges low <= score < high (NaN: no end) of at most `most` defect pixels, if they can be."""
    filled = np.flatnonzero(leading)
    starts, held = [], most
    for place in filled:
        if held + leading[place] > most:
            starts.append(place)
            held = 0
        held += int(leading[place])
    edges = _unpack((np.array(starts[1:], dtype=np.uint64)) << np.uint64(64 - _KEY_BITS)).tolist()
    if starts:
        yield from zip([-np.inf, *edges], [*edges, np.nan], strict=True)


def _inside(scores: Scores, low: float, high: float) -> Bools:
    inside = scores >= np.float32(low)
    return inside if np.isnan(high) else inside & (scores < np.float32(high))
