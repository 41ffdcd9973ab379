"""Histograms of each image's defect and good pixels in about a thousand score bins, from which curves are drawn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectlab.evaluation.pixel.maps_and_masks import PixelImages
from defectlab.evaluation.pixel.regions import region_numbers
from defectlab_runtime.decision import round_down

EDGES = 500  # at quantiles of defect pixels, and as many at those of good ones
SAMPLE = 400_000  # pixels of each kind that the edges are chosen from


@dataclass(frozen=True)
class PixelHistograms:
    """Counts of n images in k bins of the scores, ascending.

    Attributes:
        defect: (n, k) defect pixels.
        good: (n, k) good pixels.
        overlap: (n, k) of each connected region the share that lies in the bin, added up over the image's regions.
        regions: (n,) connected regions.
        flagged: (n, 2) defect and good pixels above the threshold; None without one.
    """

    defect: NDArray[np.float32]
    good: NDArray[np.float32]
    overlap: NDArray[np.float32]
    regions: NDArray[np.float32]
    flagged: NDArray[np.float64] | None


def pixel_histograms(images: PixelImages, threshold: float | None = None, edges: int = EDGES) -> PixelHistograms:
    """Count every image's pixels by score bin; up to `edges` distinct sampled scores of a class have a bin each."""
    upper = _bin_edges(images, edges)
    count, k = len(images.sizes), upper.size + 1
    defect, good, overlap = (np.zeros((count, k), dtype=np.float32) for _ in range(3))
    regions, flagged = np.zeros(count, dtype=np.float32), np.zeros((count, 2))
    limit = None if threshold is None or np.isnan(threshold) else round_down(threshold)
    for index in range(count):
        anomaly_map, mask = images.map(index), images.mask(index)
        ascending = np.sort(anomaly_map, axis=None)
        pixels = np.diff(np.searchsorted(ascending, upper, "right"), prepend=0, append=ascending.size)
        if limit is not None:
            flagged[index, 1] = ascending.size - np.searchsorted(ascending, limit, "right")
        if mask.any():
            scores = anomaly_map[mask]
            bins = np.searchsorted(upper, scores, "left")
            defect[index] = np.bincount(bins, minlength=k)
            numbers, sizes = region_numbers([mask], 0)
            overlap[index] = np.bincount(bins, weights=1 / sizes[numbers.astype(np.int64)], minlength=k)
            regions[index] = sizes.size
            if limit is not None:
                flagged[index, 0] = np.count_nonzero(scores > limit)
        good[index] = pixels - defect[index]
    flagged[:, 1] -= flagged[:, 0]
    return PixelHistograms(defect, good, overlap, regions, None if limit is None else flagged)


def _bin_edges(images: PixelImages, edges: int) -> NDArray[np.float32]:
    """Return scores, ascending, at quantiles of a sample of defect and good pixels, dense at the top."""
    generator = np.random.default_rng(0)
    count = len(images.sizes)
    most = -(-SAMPLE // count) if count else 0
    defect, good = [np.empty(0, dtype=np.float32)], [np.empty(0, dtype=np.float32)]
    for index in range(count):
        scores, marks = images.map(index).ravel(), images.mask(index).ravel()
        chosen = generator.integers(scores.size, size=most) if scores.size > most else np.arange(scores.size)
        good.append(scores[chosen][~marks[chosen]])
        found = scores[marks]
        defect.append(found[generator.integers(found.size, size=most)] if found.size > most else found)
    whole, top = np.linspace(0, 1, edges // 2), 1 - np.geomspace(1e-5, 1, edges // 2)
    shares = (np.concatenate([whole, np.linspace(0, 0.1, edges // 2)]), np.concatenate([whole, top]))  # 5 % are missed
    found_edges = [np.empty(0, dtype=np.float32)]
    for sample, share in zip((defect, good), shares, strict=True):
        values = np.sort(np.concatenate(sample))
        distinct = np.unique(values)
        few = distinct.size <= edges
        found_edges.append(distinct if few else values[np.round(share * (values.size - 1)).astype(int)])
    return np.unique(np.concatenate(found_edges))
