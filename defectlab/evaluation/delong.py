"""Placements of scores, whose mean is the AUROC, and the variance of that mean over images (DeLong et al., 1988)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab.evaluation.metrics import Floats
from defectlab_runtime.errors import InputError

Indices = NDArray[np.intp]
Groups = tuple[Indices, Indices]  # group numbers (m,) of the anomalous and (n,) of the good images


def placements(positives: Floats, negatives: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of good scores below each anomalous score, and of anomalous scores above each good score.

    Ties count half. The mean of either array is the AUROC. The order of the scores is preserved.
    """
    good, bad = np.sort(negatives), np.sort(positives)
    below = (np.searchsorted(good, positives, "left") + np.searchsorted(good, positives, "right")) / (2 * good.size)
    not_above = (np.searchsorted(bad, negatives, "left") + np.searchsorted(bad, negatives, "right")) / (2 * bad.size)
    return below, 1 - not_above


def placement_variance(above: Floats, below: Floats, groups: Groups | None = None) -> float:
    """Return the variance of an AUROC, or of the difference of two, over images that are drawn alone or by group.

    The result is NaN where a class has fewer than two images, or groups.

    Args:
        above: Placements (m,) of the anomalous images, or differences of two models' placements.
        below: Those (n,) of the good images.
        groups: Group numbers, from 0, of the anomalous (m,) and the good images (n,), for Obuchowski's clustered
            variance (1997); with one image a group it is DeLong's.
    """
    if groups is not None:
        return _clustered_variance(above, below, *groups)
    if min(above.size, below.size) < 2:
        return float("nan")
    return float(np.var(above, ddof=1) / above.size + np.var(below, ddof=1) / below.size)


def is_unvaried(*differences: Floats) -> bool:
    """Return whether the differences of two models' placements are all equal, and not zero, for a class of images.

    Nothing is then known of how they vary, and a variance of zero is no knowledge.
    """
    return any(np.ptp(its) < 1e-12 and abs(its[0]) > 1e-12 for its in differences)


def _clustered_variance(above: Floats, below: Floats, above_groups: Indices, below_groups: Indices) -> float:
    m, n = above.size, below.size
    counts = [np.unique(groups).size for groups in (above_groups, below_groups)]
    if min(counts) < 2:
        return float("nan")
    size = int(max(above_groups.max(), below_groups.max())) + 1
    # (m,), (n,) -> (groups,): each group's sum of what its images deviate from the mean
    positive = np.bincount(above_groups, above - above.mean(), size)
    negative = np.bincount(below_groups, below - below.mean(), size)
    everything = np.union1d(above_groups, below_groups).size
    s10 = counts[0] / ((counts[0] - 1) * m) * float(positive @ positive)
    s01 = counts[1] / ((counts[1] - 1) * n) * float(negative @ negative)
    s11 = everything / (everything - 1) * float(positive @ negative)
    return max(s10 / m + s01 / n + 2 * s11 / (m * n), 0.0)


def group_indices(groups: ArrayLike, count: int) -> Indices:
    """Convert group names or numbers (n,) to consecutive group indices from 0 (n,).

    Raises:
        InputError: Not one group for each of the `count` images.
    """
    names = np.asarray(groups)
    if names.shape != (count,):
        raise InputError(f"groups must name the part of each of the {count} images, got shape {names.shape}.")
    return np.unique(names, return_inverse=True)[1].astype(np.intp)
