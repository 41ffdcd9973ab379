"""Views of raw scores for display, with the threshold at 0.5 or at 100. A view never changes a decision."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab_runtime.errors import OptionError, unknown_name

# name -> where the threshold lies in it; None is the run's own, raw threshold
VIEW_THRESHOLDS: dict[str, float | None] = {"raw": None, "min_max": 0.5, "percent": 100.0}


def check_view(view: str) -> str:
    """Validate the name of a view and return it.

    Raises:
        OptionError: No view is called so.
    """
    if view not in VIEW_THRESHOLDS:
        raise OptionError(unknown_name("view", str(view), VIEW_THRESHOLDS))
    return view


def normalize_scores(
    view: str, scores: NDArray[np.floating], threshold: float, low: float, high: float, digits: int | None = None
) -> NDArray[np.floating]:
    """Convert scores (any shape) to a view: raw, min_max (threshold at 0.5) or percent (threshold at 100).

    The result has the type of `scores`, float32 or float64, and lies above the view's threshold exactly where the
    raw score, of that type, is above the raw one. NaN stays NaN.

    Raises:
        OptionError: An unknown view, more than nine digits, or for min_max a range that is none.
    """
    middle = VIEW_THRESHOLDS[check_view(view)]
    if middle is None:
        return scores
    exact = (
        normalize_min_max(scores, threshold, low, high, digits)
        if view == "min_max"
        else normalize_percent(scores, threshold, digits)
    )
    found = exact.astype(scores.dtype)
    just_above = np.nextafter(found.dtype.type(middle), found.dtype.type(np.inf))
    return np.where((exact > middle) & (found <= middle), just_above, found)


def normalize_min_max(
    scores: ArrayLike, threshold: float, low: float, high: float, digits: int | None = None
) -> NDArray[np.float64]:
    """Return scores (any shape) in [0, 1] with the threshold at 0.5 (Akcay et al., 2022, anomalib).

    `low` and `high` are the smallest and largest validation score. Above 0.5 is anomalous, exactly where the raw score
    is above the threshold, after rounding to `digits` too.

    Raises:
        OptionError: `low` is not below `high`, or digits not from 1 to 9.

    >>> normalize_min_max([1.0, 2.0, 3.0], threshold=2.0, low=1.0, high=3.0)
    array([0. , 0.5, 1. ])
    """
    if digits is not None and not 1 <= digits <= 9:
        raise OptionError(f"digits must be from 1 to 9, got {digits}.")
    if not low < high:
        raise OptionError(f"The range of scores must have low < high, got {low} and {high}.")
    raw = np.asarray(scores, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        view = np.clip((raw - threshold) / (high - low) + 0.5, 0, 1)
    return _on_its_side(view, raw, threshold, 0.5, digits)


def normalize_percent(scores: ArrayLike, threshold: float, digits: int | None = None) -> NDArray[np.float64]:
    """Return scores (any shape) in 0 .. 1000 with the threshold at 100, rounded to `digits` where given.

    score / threshold * 100; for a threshold of 0: (score + 1) * 100; below 0: 200 - score / threshold * 100.
    Above 100 is anomalous, exactly where the raw score is above the threshold, after rounding too.

    Raises:
        OptionError: More than nine digits.

    >>> normalize_percent([1.0, 2.0, 2.0001, 4.0], threshold=2.0, digits=0)
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


def normalize_percent_at(score: float, threshold: float, *, middle: float, anomalous: bool, digits: int) -> float:
    """Return one score in percent, moved if needed so that it is above `middle` exactly where it is anomalous.

    >>> normalize_percent_at(2.2, 2.0, middle=110.0, anomalous=False, digits=3)
    110.0
    """
    view = _on_its_side(normalize_percent(score, threshold), np.asarray(float(anomalous)), 0.5, middle, digits)
    return float(view)


def raw_from_percent(percent: float, threshold: float) -> float:
    """Return the raw score that lies at `percent` in the view `percent`, whose threshold is at 100.

    >>> raw_from_percent(110.0, 2.0), raw_from_percent(110.0, 0.0), raw_from_percent(110.0, -2.0)
    (2.2, 0.1, -1.8)
    """
    above = percent / 100 - 1
    return round(threshold + above * (abs(threshold) or 1.0), 12)


def _on_its_side(
    view: NDArray[np.float64], raw: NDArray[np.float64], threshold: float, middle: float, digits: int | None
) -> NDArray[np.float64]:
    """Round a view, then move values on the wrong side of `middle` to the nearest value on the correct side."""
    if digits is not None:
        view = np.round(view, digits)
    above = middle + 10.0**-digits if digits is not None else np.nextafter(middle, np.inf)
    anomalous = raw > threshold
    view = np.where(anomalous & (view <= middle), above, view)
    return np.where(~anomalous & (view > middle), middle, view)


def percent_window(threshold: float) -> tuple[float, float]:
    """Return the raw values that lie at 50 and at 150 in the view `percent`, whose threshold is at 100.

    >>> percent_window(2.0), percent_window(-2.0), percent_window(0.0)
    ((1.0, 3.0), (-3.0, -1.0), (-0.5, 0.5))
    """
    half = abs(threshold) / 2 or 0.5
    return threshold - half, threshold + half


def heat_range(low: float, high: float, threshold: float | None, relative: bool = False) -> tuple[float, float]:
    """Return the ends of the colour scale that all heat maps of a run share.

    `low` and `high` are the ends of the range of the run's validation maps; `relative` maps go from 0 to twice their
    threshold, so that the colour of the threshold is the same in every run.

    >>> heat_range(0.5, 9.0, 2.0), heat_range(0.5, 9.0, 2.0, relative=True)
    ((0.5, 9.0), (0.0, 4.0))
    """
    return (0.0, 2 * threshold) if relative and threshold is not None and threshold > 0 else (low, high)
