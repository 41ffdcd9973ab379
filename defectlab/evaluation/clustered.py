"""Images that belong together: several photographs of one part are not independent, and intervals must know it."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab.errors import InputError

Indices = NDArray[np.intp]


def group_indices(groups: ArrayLike, count: int) -> Indices:
    """Return groups (n,), of names or numbers, as numbers 0, 1, ... (n,).

    Raises:
        InputError: Not one group for each of the `count` images.
    """
    names = np.asarray(groups)
    if names.shape != (count,):
        raise InputError(f"groups must name the part of each of the {count} images, got shape {names.shape}.")
    return np.unique(names, return_inverse=True)[1].astype(np.intp)


def clustered_variance(
    top: NDArray[np.float64], bottom: NDArray[np.float64], top_groups: Indices, bottom_groups: Indices
) -> float:
    """Return the variance of an AUROC, or of the difference of two, over clustered images (Obuchowski, 1997).

    With one image a group it is DeLong's. NaN where fewer than two groups hold images of a class.

    Args:
        top: Placements (m,) of the anomalous images, or differences of two models' placements.
        bottom: Those (n,) of the good images.
        top_groups: Group (m,) of each anomalous image, numbered from 0.
        bottom_groups: Group (n,) of each good image, in the same numbers.
    """
    m, n = top.size, bottom.size
    held = [np.unique(groups).size for groups in (top_groups, bottom_groups)]
    if min(held) < 2:
        return float("nan")
    size = int(max(top_groups.max(), bottom_groups.max())) + 1
    # (m,), (n,) -> (groups,): each group's sum of what its images deviate from the mean
    above = np.bincount(top_groups, top - top.mean(), size)
    below = np.bincount(bottom_groups, bottom - bottom.mean(), size)
    everything = np.union1d(top_groups, bottom_groups).size
    s10 = held[0] / ((held[0] - 1) * m) * float(above @ above)
    s01 = held[1] / ((held[1] - 1) * n) * float(below @ below)
    s11 = everything / (everything - 1) * float(above @ below)
    return max(s10 / m + s01 / n + 2 * s11 / (m * n), 0.0)
