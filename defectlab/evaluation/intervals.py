"""Confidence intervals of a proportion and of an AUROC over the test images."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from defectlab.evaluation.delong import Groups, group_indices, placement_variance, placements
from defectlab.evaluation.metrics import Floats, auroc, sort_scores

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval and its method; without one, low and high are None and `method` gives the reason."""

    low: float | None
    high: float | None
    method: str


def auroc_interval(
    scores: ArrayLike, labels: ArrayLike, confidence: float = CONFIDENCE, groups: ArrayLike | None = None
) -> Interval:
    """Return the confidence interval of an AUROC over images; `groups` (n,) names the part that each image shows.

    See `interval_from_placements` for the method.
    """
    values, known = np.asarray(scores), np.asarray(labels)
    ordered = sort_scores(values, known)
    numbers = None if groups is None else group_indices(groups, values.size)
    found = auroc(ordered)
    if found.value is None:
        return Interval(None, None, found.reason or "")
    if numbers is None:
        return interval_from_placements(
            found.value, *placements(ordered.positives, ordered.negatives), confidence=confidence
        )
    bad, good = known == 1, known == 0
    return interval_from_placements(
        found.value, *placements(values[bad], values[good]), (numbers[bad], numbers[good]), confidence=confidence
    )


def interval_from_placements(
    area: float,
    above: Floats,
    below: Floats,
    groups: Groups | None = None,
    *,
    confidence: float = CONFIDENCE,
    note: str = "",
) -> Interval:
    """Return the interval of an AUROC from its placements: DeLong et al. (1988), normal on the logit scale.

    With groups, images of one part may depend on each other, so Obuchowski's clustered variance (Biometrics 53, 1997)
    is used. Where the classes separate perfectly, or a class has one image (or part), the variance is zero or unknown,
    so Newcombe's method 5 (Statistics in Medicine 25, 2006) is used, which depends on the counts alone.

    Args:
        area: The AUROC.
        above: Placements (m,) of the anomalous images, see `placements`.
        below: Placements (n,) of the good images.
        groups: Group numbers (m,) and (n,) of the same images, where several show one part.
        confidence: Of the interval.
        note: Added to what `method` says of DeLong's interval.
    """
    z = critical_value(confidence)
    m, n = (above.size, below.size) if groups is None else (np.unique(numbers).size for numbers in groups)
    variance = placement_variance(above, below, groups)
    if not variance > 0 or area in (0.0, 1.0):
        return newcombe_interval(area, m, n, z, of_groups=groups is not None)
    center, half = math.log(area / (1 - area)), z * math.sqrt(variance) / (area * (1 - area))
    if groups is None:
        method = f"DeLong, logit, {m} anomalous and {n} good images"
    else:
        counts = f"{above.size} anomalous images of {m} parts and {below.size} good images of {n} parts"
        method = f"DeLong, clustered by part (Obuchowski), logit, {counts}"
    return Interval(_expit(center - half), _expit(center + half), method + note)


def newcombe_interval(area: float, m: int, n: int, z: float, of_groups: bool = False) -> Interval:
    """Return the interval of an AUROC by Newcombe's method 5, from counts of anomalous and good images, or parts."""
    size = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + size * (1 - theta) / (2 - theta) + size * theta / (1 + theta)
        return (theta - area) ** 2 - z * z * theta * (1 - theta) * spread / (m * n)

    low = 0.0 if area == 0 else _root(excess, 0.0, area)
    high = 1.0 if area == 1 else _root(excess, 1.0, area)
    counts = f"{m} parts with anomalous and {n} with good images" if of_groups else f"{m} anomalous and {n} good images"
    return Interval(low, high, f"Newcombe's method 5, {counts}")


def _root(excess: Callable[[float], float], outside: float, inside: float) -> float:
    """Find by bisection where `excess` changes sign: positive towards `outside`, not positive towards `inside`."""
    for _ in range(80):
        middle = (outside + inside) / 2
        if excess(middle) > 0:
            outside = middle
        else:
            inside = middle
    return (outside + inside) / 2


def wilson_interval(hits: int, count: int, confidence: float = CONFIDENCE) -> Interval:
    """Return Wilson's score interval (1927) of the proportion `hits / count`.

    >>> wilson_interval(10, 10).low > 0.7
    True
    """
    if not count:
        return Interval(None, None, "there are no such images")
    z = critical_value(confidence)
    share, spread = hits / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / count + spread / (4 * count))
    low, high = float(middle - half), float(middle + half)
    return Interval(0.0 if hits == 0 else low, 1.0 if hits == count else high, f"Wilson, {hits} of {count} images")


def mean_and_interval(
    values: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float | None, float | None, float | None]:
    """Return the mean of at least one value, the standard deviation (ddof 1), and Student's t interval of the mean.

    All but the mean are None for a single value. The interval is not clipped to the range of the values.

    >>> [round(number, 4) for number in mean_and_interval([0.0, 1.0, 2.0])]
    [1.0, 1.0, -1.4841, 3.4841]
    """
    count, mean = len(values), math.fsum(values) / len(values)
    if count < 2:
        return mean, None, None, None
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * deviation / math.sqrt(count)
    return mean, deviation, mean - half, mean + half


def critical_value(confidence: float) -> float:
    """Return the two-sided critical value of the standard normal distribution for a confidence level."""
    return float(ndtri((1 + confidence) / 2))


def intervals_record(level: str, intervals: Mapping[str, Interval]) -> dict[str, dict[str, float | str | None]]:
    """Convert intervals to the form that run.json stores, keyed by the metric's full name."""
    return {f"{level}_{name}": {**asdict(interval), "confidence": CONFIDENCE} for name, interval in intervals.items()}


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value))
