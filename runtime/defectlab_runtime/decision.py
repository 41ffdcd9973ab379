"""The decision of a score against a threshold, and of scores of a narrower type."""

import math

import numpy as np


def decision(score: float, threshold: float | None) -> int:
    """Return 1 for a score above the threshold, 0 otherwise, and -1 for a NaN score or a threshold that is None or NaN.

    >>> decision(2.0, 1.0), decision(1.0, 1.0), decision(float("nan"), 1.0), decision(1.0, None)
    (1, 0, -1, -1)
    >>> decision(1.0, float("nan"))
    -1
    """
    if threshold is None or math.isnan(threshold) or math.isnan(score):
        return -1
    return int(score > threshold)


def round_down(threshold: float, dtype: type[np.floating] = np.float32) -> np.floating:
    """Round a threshold down to a float type: scores of that type compare with the result as with the threshold.

    Rounding to the nearest could land on a score just above the threshold, which would then count as good.

    >>> float(round_down(0.1)) <= 0.1 < float(np.nextafter(round_down(0.1), np.float32(1)))
    True
    """
    with np.errstate(over="ignore"):  # beyond the type it becomes infinite, which the next step undoes
        nearest = dtype(threshold)
    # Compared as float64: numpy would round the threshold to the type first and find them equal.
    return nearest if float(nearest) <= threshold else np.nextafter(nearest, dtype(-np.inf))
