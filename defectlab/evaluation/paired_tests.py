"""Paired tests of two models on the same images: DeLong's test of the AUROC, a bootstrap test of other metrics."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab.evaluation.delong import Indices, group_indices, is_unvaried, placement_variance, placements
from defectlab.evaluation.intervals import CONFIDENCE, critical_value
from defectlab.evaluation.metrics import Floats
from defectlab.evaluation.ranks import average_ranks
from defectlab_runtime.errors import InputError


@dataclass(frozen=True)
class PairedTest:
    """The difference of a metric (first model minus second), its interval, and the two-sided p-value of no difference.

    `low` and `high` are None where the variance is zero, which says nothing of other images.
    """

    difference: float
    low: float | None
    high: float | None
    p: float


def delong_test(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    confidence: float = CONFIDENCE,
    groups: ArrayLike | None = None,
) -> PairedTest:
    """Compare the AUROC of two models that scored the same images (DeLong et al., 1988).

    Where all differences of a class are equal and not zero (few images, or a model that gives one score to all) its
    variance is not known from them; p then comes from swapping the two models' ranks image by image: of all swaps up to
    13 images or parts, else of 9,999. With groups the variance is Obuchowski's (1997), and ranks
    are swapped part by part.

    Args:
        first: Scores (n,) of one model.
        second: Scores (n,) of the other, of the same images in the same order.
        labels: (n,): 0 good, 1 anomalous, -1 left out.
        confidence: Of the interval.
        groups: (n,): the part that each image shows, where parts have several.

    Raises:
        InputError: Different shapes, fewer than two images of a class, or scores that are not finite.
    """
    one, two, known = np.asarray(first, float), np.asarray(second, float), np.asarray(labels)
    if not one.shape == two.shape == known.shape:
        raise InputError(f"Both models must score the same images, got {one.shape}, {two.shape} and {known.shape}.")
    bad, good = known == 1, known == 0
    if min(bad.sum(), good.sum()) < 2:
        raise InputError(
            f"A paired test needs at least two good and two anomalous images, got {good.sum()} and {bad.sum()}."
        )
    if not (np.isfinite(one[bad | good]).all() and np.isfinite(two[bad | good]).all()):
        raise InputError("Some scores are NaN or infinite: they cannot be compared.")
    above, below = zip(placements(one[bad], one[good]), placements(two[bad], two[good]), strict=True)
    difference = float(above[0].mean() - above[1].mean())
    numbers = np.arange(known.size) if groups is None else group_indices(groups, known.size)
    variance = placement_variance(above[0] - above[1], below[0] - below[1], (numbers[bad], numbers[good]))
    if math.isnan(variance):
        raise InputError("A paired test needs at least two parts with good and two with anomalous images.")
    if variance == 0 or is_unvaried(above[0] - above[1], below[0] - below[1]):
        used = bad | good
        return PairedTest(difference, None, None, _permutation_p(one[used], two[used], bad[used], numbers[used]))
    half = critical_value(confidence) * math.sqrt(variance)
    p = math.erfc(abs(difference) / math.sqrt(2 * variance))
    return PairedTest(difference, difference - half, difference + half, p)


def paired_bootstrap(
    difference: float, first: NDArray[np.float64], second: NDArray[np.float64], confidence: float = CONFIDENCE
) -> PairedTest:
    """Test whether two models differ in a metric, from its values on the same resamples of the images they share.

    Normal, with the spread of the differences: what is common to both models, such as a hard image drawn twice, cancels
    out. Resamples on which either metric has no value (NaN) are left out. Where all resamples give one difference that
    is not 0, p is the smallest that so many resamples can tell.

    Args:
        difference: The metric of the first minus that of the second, on the images as they are.
        first: (b,) the first model's metric on each resample.
        second: (b,) the second's, on the same resamples.
        confidence: Of the interval.
    """
    differences = first - second
    differences = differences[~np.isnan(differences)]
    deviation = float(differences.std(ddof=1)) if differences.size > 1 else 0.0
    if deviation < 1e-12:
        return PairedTest(difference, None, None, 1.0 if abs(difference) < 1e-12 else 1 / (differences.size + 1))
    half = critical_value(confidence) * deviation
    p = math.erfc(abs(difference) / (deviation * math.sqrt(2)))
    return PairedTest(difference, difference - half, difference + half, p)


def _permutation_p(one: Floats, two: Floats, bad: NDArray[np.bool_], groups: Indices, repeats: int = 9999) -> float:
    """Return the permutation p-value of the AUROC difference, swapping the two models' ranks group by group.

    It is exact where there are at most `repeats` different swaps.
    """
    ranks = [average_ranks(scores) for scores in (one, two)]
    observed = abs(_areas(ranks[0][None], bad) - _areas(ranks[1][None], bad))[0]
    generator = np.random.default_rng(0)
    _, numbers = np.unique(groups, return_inverse=True)
    count = int(numbers.max()) + 1
    exact = 2 ** (count - 1) <= repeats  # the mirrored half of all swaps gives the same differences
    total = 2 ** (count - 1) if exact else repeats
    extreme = 0
    for start in range(0, total, 1000):  # blocks bound the memory
        size = min(1000, total - start)
        if exact:
            swap = (np.arange(start, start + size)[:, None] >> np.arange(count) & 1).astype(bool)[:, numbers]
        else:
            swap = (generator.random((size, count)) < 0.5)[:, numbers]
        first, second = np.where(swap, ranks[1], ranks[0]), np.where(swap, ranks[0], ranks[1])
        extreme += int((abs(_areas(first, bad) - _areas(second, bad)) >= observed - 1e-12).sum())
    return extreme / total if exact else (extreme + 1) / (total + 1)


def _areas(scores: Floats, bad: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the AUROC of each row of (r, n) scores."""
    positives = int(bad.sum())
    above = average_ranks(scores)[:, bad].sum(axis=1) - positives * (positives + 1) / 2
    return above / (positives * (bad.size - positives))
