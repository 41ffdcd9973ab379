"""Intervals of all metrics at once: images drawn again with replacement, each class on its own (Efron, 1979).

A draw is a count for each image. The metrics of all draws come from sums of the images' own counts by step of the
scores, so nothing is sorted again.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from defectlab.evaluation.intervals import CONFIDENCE, Interval, PairedTest, auroc_interval, critical_value
from defectlab.evaluation.metrics import sorted_curve

REPEATS = 1000
SEED = 0
Draws = NDArray[np.float32]
Table = NDArray[np.float64]


def resample_counts(
    labels: ArrayLike, groups: Sequence[str] | None = None, repeats: int = REPEATS, seed: int = SEED
) -> Draws:
    """Return how often each image is drawn: (repeats, n), whole numbers; images labelled -1 never.

    Good and anomalous images are drawn apart, as many as there are of each. With `groups` (n,) whole groups are drawn,
    those with an anomalous image apart from those without.
    """
    known = np.asarray(labels)
    parts = np.arange(known.size) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    counts = np.zeros((repeats, known.size), dtype=np.float32)
    generator = np.random.default_rng(seed)
    for units in _classes(known, parts):
        if not units.size:
            continue
        drawn = generator.multinomial(units.size, np.full(units.size, 1 / units.size), size=repeats)
        members = np.flatnonzero((known >= 0) & np.isin(parts, units))
        counts[:, members] = drawn[:, np.searchsorted(units, parts[members])]
    return counts


def with_original(draws: Draws, labels: NDArray[Any]) -> Draws:
    """Put before the draws (b, n) the images as they are, each once: (1 + b, n)."""
    return np.concatenate([(labels >= 0)[None].astype(np.float32), draws])


def bootstrap_problem(labels: ArrayLike, groups: Sequence[str] | None = None) -> str | None:
    """Say why drawing again would tell nothing: one image, or one group, of a class. None where it would."""
    known = np.asarray(labels)
    parts = np.arange(known.size) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    unit = "image" if groups is None else "group"
    names = ("good", "anomalous")
    lonely = [name for name, units in zip(names, _classes(known, parts), strict=True) if units.size == 1]
    return f"one {' and one '.join(lonely)} {unit}: nothing is known of others" if lonely else None


def _classes(known: NDArray[np.generic], parts: NDArray[np.integer]) -> list[NDArray[np.integer]]:
    """Return the good and the anomalous images, or groups, each sorted."""
    anomalous = np.unique(parts[known == 1])
    return [np.setdiff1d(parts[known == 0], anomalous), anomalous]


def image_intervals(
    scores: ArrayLike,
    labels: ArrayLike,
    threshold: float | None,
    groups: Sequence[str] | None = None,
    *,
    repeats: int = REPEATS,
    confidence: float = CONFIDENCE,
) -> dict[str, Interval]:
    """Return an interval of every image metric, by its name without a level.

    AUROC: DeLong, clustered where groups of images belong together (see `auroc_interval`); TPR, TNR and recall, which
    are shares of independent images: Wilson (1927); all others: the bootstrap (see `logit_interval`).

    Args:
        scores: (n,) raw scores.
        labels: (n,): 0 good, 1 anomalous, -1 left out.
        threshold: An image is called anomalous above it.
        groups: (n,) names of what is drawn as a whole, such as the part that several photographs show.
        repeats: Number of draws.
        confidence: Of the intervals.
    """
    values, known = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    curve = sorted_curve(values, known)
    if curve.problem:
        return {}
    lack = bootstrap_problem(known, groups)
    drawn = resampled_image_metrics(
        values, known, threshold, with_original(resample_counts(known, groups, repeats), known)
    )
    found = values > (np.inf if threshold is None else threshold)
    method = f"stratified bootstrap over {'images' if groups is None else 'groups of images'}, {repeats} draws"
    intervals = {name: logit_interval(result, method, confidence, lack) for name, result in drawn.items()}
    intervals["AUROC"] = auroc_interval(values, known, confidence, groups)
    if groups is None and threshold is not None:
        caught = wilson_interval(int((found & (known == 1)).sum()), curve.positives.size, confidence)
        passed = wilson_interval(int((~found & (known == 0)).sum()), curve.negatives.size, confidence)
        intervals |= {"TPR": caught, "recall": caught, "TNR": passed}
    return intervals


def resampled_image_metrics(
    scores: NDArray[np.floating], labels: NDArray[np.generic], threshold: float | None, draws: Draws
) -> dict[str, Table]:
    """Return each image metric (b,), by its name without a level, of draws (b, n); scores (n,) without NaN."""
    _, step = np.unique(scores, return_inverse=True)
    drawn = resampled_curve_metrics(_by_step(draws * (labels == 1), step), _by_step(draws * (labels == 0), step))
    if threshold is not None:
        found = scores > threshold
        counts = [draws @ (labels == label).astype(np.float32) for label in (1, 0)]
        flagged = [draws @ ((labels == label) & found).astype(np.float32) for label in (1, 0)]
        drawn |= resampled_rates(*(count.astype(np.float64) for count in (*flagged, *counts)))
    return drawn


def resampled_curve_metrics(defect: Table, good: Table) -> dict[str, Table]:
    """AUROC, AUPR, F1Max and FPR_at_95TPR, each (b,), of counts (b, k) by step of the scores, ascending.

    Scores of one step are tied. NaN where a metric has no value.
    """
    tp, fp = _from_top(defect), _from_top(good)
    positives, negatives = tp[:, :1], fp[:, :1]
    with np.errstate(invalid="ignore", divide="ignore"):
        below = negatives - fp + good / 2
        precision = np.where(defect > 0, tp / (tp + fp), 0)
        caught = tp >= np.ceil(np.round(0.95 * positives, 9))
        # the last step, ascending, at which enough are caught
        last = caught.shape[1] - 1 - np.argmax(caught[:, ::-1], axis=1)
        return {
            "AUROC": ((defect * below).sum(1) / (positives * negatives)[:, 0]),
            "AUPR": (defect * precision).sum(1) / positives[:, 0],
            "F1Max": np.where(positives[:, 0] > 0, (2 * tp / (tp + fp + positives)).max(1), np.nan),
            "FPR_at_95TPR": np.where(
                positives[:, 0] > 0, np.take_along_axis(fp, last[:, None], 1)[:, 0] / negatives[:, 0], np.nan
            ),
        }


def resampled_rates(tp: Table, fp: Table, positives: Table, negatives: Table) -> dict[str, Table]:
    """F1Score, TPR, TNR, accuracy, precision and recall, each (b,), of counts (b,); NaN where one has no value."""
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = tp / positives
        return {
            "F1Score": np.where(positives > 0, 2 * tp / (tp + fp + positives), np.nan),
            "TPR": recall,
            "TNR": (negatives - fp) / negatives,
            "accuracy": (tp + negatives - fp) / (positives + negatives),
            "precision": tp / (tp + fp),
            "recall": recall,
        }


def logit_interval(values: Table, method: str, confidence: float = CONFIDENCE, lack: str | None = None) -> Interval:
    """Return the interval of a metric in [0, 1]: normal on the logit scale, with the spread of the bootstrap's draws.

    Percentiles of the draws themselves cover too little where a metric is near its end, or, as F1Max is, the best of
    many (at 40 images of a class 73 % instead of 95 %).

    Args:
        values: (1 + b,): the metric of the images as they are, then of b draws; NaN where it has none.
        method: What the interval's `method` says.
        confidence: Of the interval.
        lack: Why there is none, if so.
    """
    value, drawn = float(values[0]), values[1:][~np.isnan(values[1:])]
    if lack:
        return Interval(None, None, lack)
    if not drawn.size or np.isnan(value):
        return Interval(None, None, "the metric has no value on any draw")
    if drawn.min() == drawn.max():
        return Interval(None, None, "every draw gives the same value, which says nothing of other images")
    inner = drawn[(drawn > 0) & (drawn < 1)]
    nearest = min(inner.min(initial=0.5), 1 - inner.max(initial=0.5)) / 2  # stands for 0 and 1, whose logit is infinite
    half = critical_value(confidence) * float(logit(np.clip(drawn, nearest, 1 - nearest)).std(ddof=1))
    middle = float(logit(np.clip(value, nearest, 1 - nearest)))
    low, high = (0.0 if value <= 0 else float(expit(middle - half)), 1.0 if value >= 1 else float(expit(middle + half)))
    usable = "" if drawn.size == values.size - 1 else f", {drawn.size} usable"
    return Interval(low, high, f"{method}{usable}, logit")


def wilson_interval(hits: int, count: int, confidence: float = CONFIDENCE) -> Interval:
    """Return Wilson's score interval of a share (1927).

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


def intervals_record(level: str, intervals: Mapping[str, Interval]) -> dict[str, dict[str, float | str | None]]:
    """Return intervals as run.json holds them, by the metric's full name."""
    return {
        f"{level}_{name}": {
            "low": interval.low,
            "high": interval.high,
            "method": interval.method,
            "confidence": CONFIDENCE,
        }
        for name, interval in intervals.items()
    }


def _by_step(draws: NDArray[np.floating], step: NDArray[np.integer]) -> Table:
    """Add up the draws (b, n) of images of one step: (b, k)."""
    order = np.argsort(step, kind="stable")
    starts = np.searchsorted(step[order], np.arange(int(step.max(initial=-1)) + 1))
    if not starts.size:
        return np.zeros((len(draws), 1))
    return np.add.reduceat(draws[:, order].astype(np.float64), starts, axis=1)


def _from_top(counts: Table) -> Table:
    return np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]


def paired_bootstrap(
    difference: float,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    confidence: float = CONFIDENCE,
) -> PairedTest:
    """Test whether two models differ in a metric, from its values on the same draws of the images they share.

    Normal, with the spread of the differences: what is common to both models, such as a hard image drawn twice, cancels
    out. Draws on which either metric has no value (NaN) are left out. Where all draws give one difference that is not
    0, p is the smallest that so many draws can tell.

    Args:
        difference: The metric of the first minus that of the second, on the images as they are.
        first: (b,) the first model's metric on each draw.
        second: (b,) the second's, on the same draws.
        confidence: Of the interval.
    """
    drawn = first - second
    drawn = drawn[~np.isnan(drawn)]
    deviation = float(drawn.std(ddof=1)) if drawn.size > 1 else 0.0
    if deviation < 1e-12:
        return PairedTest(difference, None, None, 1.0 if abs(difference) < 1e-12 else 1 / (drawn.size + 1))
    half = critical_value(confidence) * deviation
    p = math.erfc(abs(difference) / (deviation * math.sqrt(2)))
    return PairedTest(difference, difference - half, difference + half, p)
