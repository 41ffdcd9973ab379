"""Images that belong together: several photographs of one part are not independent, and intervals must know it."""

from collections.abc import Iterator

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


def draws(
    labels: NDArray[np.integer], groups: Indices | None, generator: np.random.Generator, repeats: int
) -> Iterator[Indices]:
    """Yield positions of images drawn again with replacement, good and anomalous ones apart, -1 left out.

    With groups whole groups are drawn, those of good images, of anomalous ones and of both apart: the numbers of groups
    of each sort stay, those of images vary with the sizes of the groups drawn.
    """
    if groups is None:
        classes = [np.flatnonzero(labels == label) for label in (0, 1)]
        for _ in range(repeats):
            yield np.concatenate([generator.choice(part, part.size) for part in classes if part.size] or [_NONE])
        return
    known = np.flatnonzero(labels >= 0)
    order = known[np.argsort(groups[known], kind="stable")]
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if order.size else []
    sorts = np.array([(labels[one] == 0).any() + 2 * (labels[one] == 1).any() for one in members])
    strata = [np.flatnonzero(sorts == sort) for sort in (1, 2, 3)]
    for _ in range(repeats):
        chosen = [int(at) for part in strata if part.size for at in generator.choice(part, part.size)]
        yield np.concatenate([members[at] for at in chosen] or [_NONE])


_NONE: Indices = np.empty(0, dtype=np.intp)
