"""How sure one can be: intervals of metrics over the test images, and paired tests of two models on the same images."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from defectlab.evaluation.metrics import Floats, curve_auroc, sorted_curve
from defectlab.utils.errors import InputError

CONFIDENCE = 0.95


Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Interval:
    """A confidence interval and how it was made; low and high are None where there is none, and `method` says why."""

    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class PairedTest:
    """AUROC of the first minus that of the second model, its interval, and the two-sided p-value of no difference.

    `low` and `high` are None where the variance is zero, which says nothing of other images.
    """

    difference: float
    low: float | None
    high: float | None
    p: float


def auroc_interval(
    scores: ArrayLike, labels: ArrayLike, confidence: float = CONFIDENCE, groups: ArrayLike | None = None
) -> Interval:
    """Return an interval of AUROC over images: DeLong et al. (1988) on the logit scale.

    With `groups` (n,), the part that each image shows, images of one part may depend on each other: then Obuchowski's
    clustered variance (Biometrics 53, 1997). Where the classes separate perfectly, or a class has one image (or part),
    the variance is zero or unknown: then Newcombe's method 5 (Statistics in Medicine 25, 2006), which depends on the
    counts alone.
    """
    if groups is not None:
        return _grouped_auroc_interval(np.asarray(scores), np.asarray(labels), critical_value(confidence), groups)
    curve = sorted_curve(scores, labels)
    found = curve_auroc(curve)
    if found.value is None:
        return Interval(None, None, found.reason or "")
    auroc, z = found.value, critical_value(confidence)
    m, n = curve.positives.size, curve.negatives.size
    variance = math.nan if min(m, n) < 2 else delong_variance(*placements(curve.positives, curve.negatives))
    if not variance > 0 or auroc in (0.0, 1.0):
        return newcombe_interval(auroc, m, n, z)
    return interval_on_logit(auroc, variance, z, auroc_method(m, n))


def _grouped_auroc_interval(
    scores: NDArray[np.floating], labels: NDArray[np.integer], z: float, groups: ArrayLike
) -> Interval:
    numbers = group_indices(groups, scores.size)
    found = curve_auroc(sorted_curve(scores, labels))
    if found.value is None:
        return Interval(None, None, found.reason or "")
    bad, good = labels == 1, labels == 0
    top, bottom = placements(scores[bad], scores[good])
    variance = clustered_variance(top, bottom, numbers[bad], numbers[good])
    m, n = (np.unique(numbers[kind]).size for kind in (bad, good))
    if not variance > 0 or found.value in (0.0, 1.0):
        return newcombe_interval(found.value, m, n, z, of_parts=True)
    how = auroc_method(int(bad.sum()), int(good.sum()), (numbers[bad], numbers[good]))
    return interval_on_logit(found.value, variance, z, how)


def auroc_method(anomalous: int, good: int, parts: tuple[Indices, Indices] | None = None) -> str:
    """Say how an interval of an AUROC over so many images was made; `parts`: those of the anomalous and of the good."""
    if parts is None:
        return f"DeLong, logit, {anomalous} anomalous and {good} good images"
    m, n = (np.unique(numbers).size for numbers in parts)
    images = f"{anomalous} anomalous images of {m} parts and {good} good images of {n} parts"
    return f"DeLong, clustered by part (Obuchowski), logit, {images}"


def interval_on_logit(auroc: float, variance: float, z: float, method: str) -> Interval:
    """Return the interval of an AUROC in (0, 1): normal on the logit scale, `z` deviations to each side."""
    center, half = math.log(auroc / (1 - auroc)), z * math.sqrt(variance) / (auroc * (1 - auroc))
    return Interval(_expit(center - half), _expit(center + half), method)


def placements(positives: Floats, negatives: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, for each anomalous score, the share of good ones below it, and for each good one that of anomalous above.

    Ties count half. Means of both are the AUROC. Any order in, the same order out.
    """
    good, bad = np.sort(negatives), np.sort(positives)
    below = (np.searchsorted(good, positives, "left") + np.searchsorted(good, positives, "right")) / (2 * good.size)
    not_above = (np.searchsorted(bad, negatives, "left") + np.searchsorted(bad, negatives, "right")) / (2 * bad.size)
    return below, 1 - not_above


def delong_test(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    confidence: float = CONFIDENCE,
    groups: ArrayLike | None = None,
) -> PairedTest:
    """Compare the AUROC of two models that scored the same images (DeLong et al., 1988).

    Where its variance is zero (both separate perfectly, or a model gives one score to all) p comes from swapping the
    two models' ranks image by image, 9,999 times. With groups the variance is Obuchowski's (1997), and ranks
    are swapped part by part.

    Args:
        first: Scores (n,) of one model.
        second: Scores (n,) of the other, of the same images in the same order.
        labels: (n,): 0 good, 1 anomalous, -1 left out.
        confidence: Of the interval.
        groups: (n,): the part that each image shows, where parts have several.

    Raises:
        InputError: Different shapes, fewer than two images of a class, or NaN.
    """
    one, two, known = np.asarray(first, float), np.asarray(second, float), np.asarray(labels)
    if not one.shape == two.shape == known.shape:
        raise InputError(f"Both models must score the same images, got {one.shape}, {two.shape} and {known.shape}.")
    bad, good = known == 1, known == 0
    if min(bad.sum(), good.sum()) < 2:
        raise InputError(
            f"A paired test needs at least two good and two anomalous images, got {good.sum()} and {bad.sum()}."
        )
    if np.isnan(one[bad | good]).any() or np.isnan(two[bad | good]).any():
        raise InputError("Some scores are NaN: they cannot be compared.")
    tops, bottoms = zip(placements(one[bad], one[good]), placements(two[bad], two[good]), strict=True)
    difference = float(tops[0].mean() - tops[1].mean())
    numbers = np.arange(known.size) if groups is None else group_indices(groups, known.size)
    variance = clustered_variance(tops[0] - tops[1], bottoms[0] - bottoms[1], numbers[bad], numbers[good])
    if math.isnan(variance):
        raise InputError("A paired test needs at least two parts with good and two with anomalous images.")
    if variance == 0:
        used = bad | good
        return PairedTest(difference, None, None, _swapped_p(one[used], two[used], bad[used], numbers[used]))
    half = critical_value(confidence) * math.sqrt(variance)
    p = math.erfc(abs(difference) / math.sqrt(2 * variance))
    return PairedTest(difference, difference - half, difference + half, p)


def _swapped_p(one: Floats, two: Floats, bad: NDArray[np.bool_], groups: Indices, repeats: int = 9999) -> float:
    """Return the p-value of the AUROC difference when each group's two sets of ranks may as well be exchanged."""
    ranks = [rankdata(scores) for scores in (one, two)]
    observed = abs(_areas(ranks[0][None], bad) - _areas(ranks[1][None], bad))[0]
    generator = np.random.default_rng(0)
    _, numbers = np.unique(groups, return_inverse=True)
    extreme = 0
    for start in range(0, repeats, 1000):  # blocks bound the memory
        swap = (generator.random((min(1000, repeats - start), int(numbers.max()) + 1)) < 0.5)[:, numbers]
        first, second = np.where(swap, ranks[1], ranks[0]), np.where(swap, ranks[0], ranks[1])
        extreme += int((abs(_areas(first, bad) - _areas(second, bad)) >= observed - 1e-12).sum())
    return (extreme + 1) / (repeats + 1)


def _areas(scores: Floats, bad: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the AUROC of each row of (r, n) scores."""
    positives = int(bad.sum())
    above = rankdata(scores, axis=1)[:, bad].sum(axis=1) - positives * (positives + 1) / 2
    return above / (positives * (bad.size - positives))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for the number of comparisons (Holm, 1979), keyed as given.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    corrected: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}


def trivial_f1(labels: ArrayLike) -> float | None:
    """F1 of calling every image anomalous: what any useful detector must beat.

    >>> trivial_f1([1, 1, 1, 0])
    0.8571428571428571
    """
    known = np.asarray(labels)
    bad, good = int((known == 1).sum()), int((known == 0).sum())
    return 2 * bad / (2 * bad + good) if bad else None


def prevalence(labels: ArrayLike) -> float | None:
    """Share of anomalous images: the AUPR of a detector that knows nothing.

    >>> prevalence([1, 1, 1, 0])
    0.75
    """
    known = np.asarray(labels)
    count = int((known >= 0).sum())
    return int((known == 1).sum()) / count if count else None


def delong_variance(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> float:
    """Return the variance of an AUROC, or of a difference of two, from placements (m,) and (n,), or differences."""
    return float(np.var(top, ddof=1) / top.size + np.var(bottom, ddof=1) / bottom.size)


def newcombe_interval(auroc: float, m: int, n: int, z: float, of_parts: bool = False) -> Interval:
    """Return the interval of an AUROC by Newcombe's method 5, from counts of anomalous and good images, or parts."""
    size = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + size * (1 - theta) / (2 - theta) + size * theta / (1 + theta)
        return (theta - auroc) ** 2 - z * z * theta * (1 - theta) * spread / (m * n)

    low = 0.0 if auroc == 0 else _root(excess, 0.0, auroc)
    high = 1.0 if auroc == 1 else _root(excess, 1.0, auroc)
    counts = f"{m} parts with anomalous and {n} with good images" if of_parts else f"{m} anomalous and {n} good images"
    return Interval(low, high, f"Newcombe's method 5, {counts}")


def _root(excess: Callable[[float], float], outside: float, inside: float) -> float:
    """Bisect between a point whose excess is positive, or an end of [0, 1], and the estimate, where it is negative."""
    for _ in range(80):
        middle = (outside + inside) / 2
        if excess(middle) > 0:
            outside = middle
        else:
            inside = middle
    return (outside + inside) / 2


def critical_value(confidence: float) -> float:
    """Return how many standard deviations to each side of the mean hold this share of a normal distribution."""
    from scipy.special import ndtri

    return float(ndtri((1 + confidence) / 2))


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value))


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
