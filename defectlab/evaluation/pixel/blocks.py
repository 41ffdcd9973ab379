"""Counts over all pixels of any number of images, block by block within a memory limit.

All pixel metrics follow from how many good pixels score below, and how many up to, each distinct score of the defect
pixels. These counts add up over blocks of images, so each block is counted and then released. Where there are too many
defect pixels for the memory, they are processed one range of scores at a time. Every sum is of whole numbers,
or runs in the order of the scores, so the result does not depend on the blocks, to the last digit.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from defectlab.evaluation.metrics import Confusion
from defectlab.evaluation.pixel.counting import count_scores
from defectlab.evaluation.pixel.defect_pixels import (
    Counts,
    DefectPixels,
    Packed,
    Scores,
    leading_counts,
    merge,
    pack,
    score_ranges,
    sums,
)
from defectlab.evaluation.pixel.maps_and_masks import PixelImages, blocks_of
from defectlab.evaluation.pixel.regions import region_numbers
from defectlab_runtime.decision import round_down

logger = logging.getLogger(__name__)

MEMORY = 3 << 29  # bytes: 1.5 GiB
BYTES_PER_PIXEL = 12  # of a block: score, mask, and the scores close to a defect pixel's
BYTES_PER_DEFECT_PIXEL = 48  # score and region packed, pixels of each, distinct scores, counts at each
SLICE_SIZE = 1 << 18  # distinct scores handled at one time
READ_SIZE = 1 << 18  # pixels read at one time, where the bound on memory allows: they stay in the cache


@dataclass(frozen=True)
class ScoreSteps:
    """Distinct scores (k,) of defect pixels, ascending, among all pixels.

    Attributes:
        scores: (k,) the scores.
        ties: (k,) defect pixels of this score.
        defect_below: (k,) defect pixels of a lower score.
        good_below: (k,) good pixels of a lower score.
        good_up_to: (k,) good pixels of a lower score or the same.
        step: (p,) position in `scores` of each entry of `region`.
        region: (p,) number of a connected region that has defect pixels of this score.
        pixels: (p,) how many it has.
    """

    scores: Scores
    ties: Counts
    defect_below: Counts
    good_below: Counts
    good_up_to: Counts
    step: Counts
    region: Counts
    pixels: Counts


@dataclass(frozen=True)
class PixelSummary:
    """The result of one pass over all pixels: counts, region sizes and, where they fit, the defect pixels.

    Attributes:
        defect: Number of defect pixels.
        good: Number of good pixels.
        nan: Number of scores that are NaN.
        confusion: Counts at the threshold; None without one.
        sizes: (r,) pixels of each connected region.
        leading: Defect pixels by the leading bits of their score, see `leading_counts`.
        defects: All defect pixels; None where they do not fit into the memory.
    """

    defect: int
    good: int
    nan: int
    confusion: Confusion | None
    sizes: Counts
    leading: Counts
    defects: DefectPixels | None


class Blocks:
    """The pixels of images, block by block within `memory` bytes.

    A block and the defect pixels of one range of scores take half each. An image is never split, and scores of one
    range are never fewer than those that share their leading 16 bits: at most 65,536 for each region.
    """

    def __init__(self, images: PixelImages, memory: int = MEMORY) -> None:
        self.images = images
        most = max(memory // 2 // BYTES_PER_PIXEL, 1)
        self.blocks = list(blocks_of(images.sizes, min(most, READ_SIZE)))
        self.max_defect_pixels = max(memory // 2 // BYTES_PER_DEFECT_PIXEL, 1)
        self._pixels = sum(height * width for height, width in images.sizes)
        if self._pixels > most:
            logger.info(
                "Pixel metrics: %d million pixels in %d blocks, within %d MiB",
                round(self._pixels / 1e6),
                len(self.blocks),
                memory >> 20,
            )

    def summarize(self, threshold: float | None) -> PixelSummary:
        """Read every pixel once: count pixels by class and by threshold, and find the connected regions."""
        limit = None if threshold is None or np.isnan(threshold) else round_down(threshold)
        defect = good = nan = above = hits = regions = 0
        sizes: list[Counts] = [np.empty(0, dtype=np.int64)]
        leading = leading_counts(np.empty(0, dtype=np.uint64))
        packed: list[Packed] | None = [np.empty(0, dtype=np.uint64)]
        for block in self.blocks:
            scores, marks = self._scores(block), [self.images.mask(index) for index in block]
            found = scores[np.concatenate([mask.ravel() for mask in marks])]
            defect += found.size
            good += scores.size - found.size
            nan += int(np.isnan(scores).sum()) if np.isnan(scores.min(initial=0)) else 0
            if limit is not None:
                above += int(np.count_nonzero(scores > limit))
                hits += int(np.count_nonzero(found > limit))
            numbers, block_sizes = region_numbers(marks, regions)
            regions += block_sizes.size
            sizes.append(block_sizes)
            pairs = pack(found, numbers)
            leading += leading_counts(pairs)
            if packed is not None:
                packed.append(pairs)
                packed = packed if defect <= self.max_defect_pixels else None
        confusion = None if limit is None else Confusion(hits, above - hits, defect - hits, good - above + hits)
        defects = None if packed is None else DefectPixels.of(np.concatenate(packed))
        return PixelSummary(defect, good, nan, confusion, np.concatenate(sizes), leading, defects)

    def steps(self, summary: PixelSummary) -> Iterator[ScoreSteps]:
        """Yield the distinct scores of defect pixels with pixel counts below each, in ascending slices."""
        defect_below = 0
        for defects in self._defect_ranges(summary):
            below, up_to = count_scores(self.blocks, self._scores, defects.scores, self._pixels)
            start = 0
            for part in defects.slices(SLICE_SIZE):
                here = slice(start, start + part.scores.size)
                ties = sums(part.step, part.pixels, part.scores.size)
                defect_up_to = defect_below + np.cumsum(ties)
                yield ScoreSteps(
                    scores=part.scores,
                    ties=ties,
                    defect_below=defect_up_to - ties,
                    good_below=below[here] - (defect_up_to - ties),
                    good_up_to=up_to[here] - defect_up_to,
                    step=part.step,
                    region=part.region,
                    pixels=part.pixels,
                )
                defect_below = int(defect_up_to[-1])
                start = here.stop

    def _defect_ranges(self, summary: PixelSummary) -> Iterator[DefectPixels]:
        """Yield the defect pixels by ascending ranges of scores, or all at once where they fit into the memory."""
        if summary.defects is not None:
            yield summary.defects
            return
        for low, high in score_ranges(summary.leading, self.max_defect_pixels):
            packed, pixels = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
            regions = 0
            for block in self.blocks:
                marks = [self.images.mask(index) for index in block]
                found = np.concatenate([self.images.map(i)[mask] for i, mask in zip(block, marks, strict=True)])
                numbers, sizes = region_numbers(marks, regions)
                regions += sizes.size
                inside = (found >= np.float32(low)) & (np.isnan(high) | (found < np.float32(high)))
                packed = np.concatenate([packed, pack(found[inside], numbers[inside])])
                pixels = np.append(pixels, np.ones(packed.size - pixels.size, dtype=np.int64))
                if packed.size > self.max_defect_pixels:
                    packed, pixels = merge(packed, pixels)
            yield DefectPixels.of(packed, pixels)

    def _scores(self, block: range) -> Scores:
        sizes = self.images.sizes
        scores = np.empty(sum(sizes[index][0] * sizes[index][1] for index in block), dtype=np.float32)
        start = 0
        for index in block:
            one = self.images.map(index)
            scores[start : start + one.size] = one.ravel()
            start += one.size
        return scores
