"""Connected regions of masks: the defects, to which AUPRO gives equal weight."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

NEIGHBOURS = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner are one region


def region_numbers(masks: list[NDArray[np.bool_]], first: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Number the connected regions from `first` on; return each marked pixel's region, row by row, and region sizes."""
    numbers: list[NDArray[np.uint64]] = [np.empty(0, dtype=np.uint64)]
    sizes: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
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
