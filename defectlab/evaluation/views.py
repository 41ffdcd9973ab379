"""Views of raw scores for people: the threshold at 0.5 or at 100. A view never flips a decision."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab.errors import OptionError


def min_max(scores: ArrayLike, threshold: float, low: float, high: float) -> NDArray[np.float64]:
    """Return scores (any shape) in [0, 1] with the threshold at 0.5 (Akcay et al., 2022, anomalib).

    `low` and `high` are the smallest and largest validation score. Above 0.5 is anomalous, exactly where the raw score
    is above the threshold.

    Raises:
        OptionError: `low` is not below `high`.

    >>> min_max([1.0, 2.0, 3.0], threshold=2.0, low=1.0, high=3.0)
    array([0. , 0.5, 1. ])
    """
    if not low < high:
        raise OptionError(f"The range of scores must have low < high, got {low} and {high}.")
    raw = np.asarray(scores, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        view = np.clip((raw - threshold) / (high - low) + 0.5, 0, 1)
    return _on_its_side(view, raw, threshold, 0.5, None)


def at_100(scores: ArrayLike, threshold: float, digits: int | None = None) -> NDArray[np.float64]:
    """Return scores (any shape) in 0 .. 1000 with the threshold at 100, rounded to `digits` where given.

    score / threshold * 100; for a threshold of 0: (score + 1) * 100; below 0: 200 - score / threshold * 100.
    Above 100 is anomalous, exactly where the raw score is above the threshold, after rounding too.

    Raises:
        OptionError: More than nine digits.

    >>> at_100([1.0, 2.0, 2.0001, 4.0], threshold=2.0, digits=0)
    array([ 50., 100., 101., 200.])
    """
    if digits is not None and not 0 <= digits <= 9:
        raise OptionError(f"digits must be from 0 to 9, got {digits}.")
    raw = np.asarray(scores, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if threshold == 0:
            view = (raw + 1) * 100
        elif threshold > 0:
            view = raw / threshold * 100
        else:
            view = 200 - raw / threshold * 100
    return _on_its_side(np.clip(view, 0, 1000), raw, threshold, 100.0, digits)


def _on_its_side(
    view: NDArray[np.float64], raw: NDArray[np.float64], threshold: float, middle: float, digits: int | None
) -> NDArray[np.float64]:
    """Round, then move what landed on the wrong side of the middle to the nearest value on its own side."""
    if digits is not None:
        view = np.round(view, digits)
    above = middle + 10.0**-digits if digits is not None else np.nextafter(middle, np.inf)
    anomalous = raw > threshold
    view = np.where(anomalous & (view <= middle), above, view)
    return np.where(~anomalous & (view > middle), middle, view)
