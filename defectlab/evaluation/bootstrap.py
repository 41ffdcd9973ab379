"""Bootstrap intervals of all metrics at once: images resampled with replacement, each class on its own (Efron, 1979).

A resample is stored as a count for each image. The metrics of all resamples are computed from sums of these counts over
the sorted distinct scores, so nothing is sorted again.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, stdtrit

from defectlab.evaluation.intervals import CONFIDENCE, Interval, auroc_interval, critical_value, wilson_interval
from defectlab.evaluation.metrics import f1_curve, sort_scores

REPEATS = 1000
SEED = 0
MIN_UNITS = 5  # images of each class, or groups, for any interval: the smallest number that was simulated
MIN_WRONG = 2  # images on the wrong side, for an interval of F1, AUPR, accuracy or precision
MIN_FALSE_ALARMS, MIN_GOOD_FOR_RATE, MIN_ANOMALOUS_FOR_RATE = 3, 20, 30  # for one of FPR_at_95TPR
Resamples = NDArray[np.float32]  # (b, n): how often each image was drawn
Table = NDArray[np.float64]


def resample_counts(
    labels: ArrayLike, groups: Sequence[str] | None = None, repeats: int = REPEATS, seed: int = SEED
) -> Resamples:
    """Return how often each image is drawn in each resample: (repeats, n), whole numbers; 0 for images labelled -1.

    Good and anomalous images are drawn separately, as many as there are of each. With `groups` (n,) whole groups are
    drawn, those with an anomalous image separately from those without.
    """
    known, units, classes = _units(labels, groups)
    counts = np.zeros((repeats, known.size), dtype=np.float32)
    generator = np.random.default_rng(seed)
    for members in classes:
        if not members.size:
            continue
        resampled = generator.multinomial(members.size, np.full(members.size, 1 / members.size), size=repeats)
        images = np.flatnonzero((known >= 0) & np.isin(units, members))
        counts[:, images] = resampled[:, np.searchsorted(members, units[images])]
    return counts


def bootstrap_problem(labels: ArrayLike, groups: Sequence[str] | None = None) -> str | None:
    """Return why resampling is uninformative (a class has a single image or group), or None if it is informative."""
    _, _, classes = _units(labels, groups)
    single = [name for name, units in zip(("good", "anomalous"), classes, strict=True) if units.size == 1]
    unit = "image" if groups is None else "group"
    return f"one {' and one '.join(single)} {unit}: nothing is known of others" if single else None


def fewest_units(labels: ArrayLike, groups: Sequence[str] | None = None) -> int:
    """Return the number of images, or groups, of the smaller class; a class without any is left out."""
    return min((units.size for units in _units(labels, groups)[2] if units.size), default=0)


def _units(
    labels: ArrayLike, groups: Sequence[str] | None
) -> tuple[NDArray[np.integer], NDArray[np.integer], tuple[NDArray[np.integer], NDArray[np.integer]]]:
    """Return the labels (n,), each image's sampling unit (n,), and the units of the good and of the anomalous class."""
    known = np.asarray(labels)
    units = np.arange(known.size) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    anomalous = np.unique(units[known == 1])
    return known, units, (np.setdiff1d(units[known == 0], anomalous), anomalous)


def bootstrap_intervals(
    metrics: Callable[[Resamples], Mapping[str, Table]],
    labels: ArrayLike,
    groups: Sequence[str] | None,
    repeats: int,
    confidence: float,
    note: str = "",
) -> dict[str, Interval]:
    """Return the bootstrap confidence interval of each metric, keyed by the metric's name.

    Args:
        metrics: Computes each metric (b,) of resamples (b, n).
        labels: (n,): 0 good, 1 anomalous, -1 left out.
        groups: (n,) names of what is drawn as a whole.
        repeats: Number of resamples.
        confidence: Of the intervals.
        note: Added to what `method` says.
    """
    known = np.asarray(labels)
    original = (known >= 0)[None].astype(np.float32)  # the images as they are, each once
    found = metrics(np.concatenate([original, resample_counts(known, groups, repeats)]))
    unit = "images" if groups is None else "groups of images"
    method = f"stratified bootstrap over {unit}, {repeats} draws{note}"
    lack = bootstrap_problem(known, groups)
    smallest = fewest_units(known, groups)
    if lack is None and smallest < MIN_UNITS:
        lack = f"{smallest} {unit} of a class: with fewer than {MIN_UNITS} the bootstrap knows too little of others"
    return {
        name: logit_interval(values, method, confidence, lack, smallest, is_maximum=name == "F1Max")
        for name, values in found.items()
    }


def image_intervals(
    scores: ArrayLike,
    labels: ArrayLike,
    threshold: float | None,
    groups: Sequence[str] | None = None,
    *,
    repeats: int = REPEATS,
    confidence: float = CONFIDENCE,
) -> dict[str, Interval]:
    """Return a confidence interval of every image metric, keyed by the metric's name without its level.

    AUROC: DeLong, clustered where groups of images belong together (see `auroc_interval`); TPR, TNR and recall, which
    are shares of independent images: Wilson (1927); all others: the bootstrap (see `logit_interval`), which gives none
    where too few images are wrong for it to be right (`MIN_WRONG` and the like).

    Args:
        scores: (n,) raw scores.
        labels: (n,): 0 good, 1 anomalous, -1 left out.
        threshold: An image is called anomalous above it.
        groups: (n,) names of what is drawn as a whole, such as the part that several photographs show.
        repeats: Number of resamples.
        confidence: Of the intervals.
    """
    values, known = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if sort_scores(values, known).problem:
        return {}
    intervals = bootstrap_intervals(
        lambda resamples: resampled_image_metrics(values, known, threshold, resamples),
        known, groups, repeats, confidence,
    )  # fmt: skip
    for name, reason in _too_few(values, known, threshold, groups).items():
        if name in intervals and intervals[name].low is not None:
            intervals[name] = Interval(None, None, reason)
    intervals["AUROC"] = auroc_interval(values, known, confidence, groups)
    if groups is None and threshold is not None:
        flagged = values > threshold
        caught = wilson_interval(int((flagged & (known == 1)).sum()), int((known == 1).sum()), confidence)
        passed = wilson_interval(int((~flagged & (known == 0)).sum()), int((known == 0).sum()), confidence)
        intervals |= {"TPR": caught, "recall": caught, "TNR": passed}
    return intervals


def _too_few(
    scores: NDArray[np.floating],
    labels: NDArray[np.generic],
    threshold: float | None,
    groups: Sequence[str] | None,
) -> dict[str, str]:
    """Return why metrics have no bootstrap interval: how they vary rests on the wrong images, and these are few.

    Below these numbers the intervals were found to cover less than 93 % (`benchmarks/simulate_coverage.py`).
    """
    good, bad = labels == 0, labels == 1
    if not (good.any() and bad.any()):
        return {}
    _, units, _ = _units(labels, groups)
    what = "images" if groups is None else "groups of images"

    def count(chosen: NDArray[np.bool_]) -> int:
        return int(np.unique(units[chosen]).size)

    def wrong_at(cut: float) -> NDArray[np.bool_]:
        return (good & (scores > cut)) | (bad & ~(scores > cut))

    found: dict[str, str] = {}

    def require(names: tuple[str, ...], number: int, least: int, which: str) -> None:
        if number < least:
            reason = f"{number} {what} {which}: with fewer than {least} the bootstrap covers less than 93 %, not 95 %"
            found.update(dict.fromkeys(names, reason))

    values, f1 = f1_curve(sort_scores(scores, labels))
    best = float(np.nextafter(values[int(f1.argmax())], -np.inf))  # what scores as high is flagged
    require(("F1Max", "AUPR"), count(wrong_at(best)), MIN_WRONG, "are wrong at the best threshold")
    if threshold is not None:
        require(("F1Score", "accuracy"), count(wrong_at(threshold)), MIN_WRONG, "are wrong at the threshold")
        require(("precision",), count(good & (scores > threshold)), MIN_WRONG, "are flagged though good")
    ascending = np.sort(scores[bad])
    cut = ascending[bad.sum() - int(np.ceil(np.round(0.95 * bad.sum(), 9)))]
    rate = ("FPR_at_95TPR",)
    require(rate, count(good & (scores >= cut)), MIN_FALSE_ALARMS, "are flagged where 95 % are caught")
    require(rate, count(good), MIN_GOOD_FOR_RATE, "are good")
    require(rate, count(bad), MIN_ANOMALOUS_FOR_RATE, "are anomalous, of which 5 % are to be missed")
    return found


def resampled_image_metrics(
    scores: NDArray[np.floating], labels: NDArray[np.generic], threshold: float | None, resamples: Resamples
) -> dict[str, Table]:
    """Return each image metric (b,) on resamples (b, n), keyed by name without level; scores (n,) must not be NaN."""
    _, step = np.unique(scores, return_inverse=True)
    defect, good = (_by_step(resamples * (labels == label), step) for label in (1, 0))
    found = resampled_curve_metrics(defect, good)
    if threshold is not None:
        flagged = scores > threshold
        counts = [resamples @ (labels == label).astype(np.float32) for label in (1, 0)]
        above = [resamples @ ((labels == label) & flagged).astype(np.float32) for label in (1, 0)]
        found |= resampled_rates(*(count.astype(np.float64) for count in (*above, *counts)))
    return found


def resampled_curve_metrics(defect: Table, good: Table) -> dict[str, Table]:
    """Return AUROC, AUPR, F1Max and FPR_at_95TPR, each (b,), from counts (b, k) per step of ascending scores.

    Scores of one step are tied. A metric that is undefined on a resample is NaN.
    """
    tp, fp = (np.cumsum(counts[:, ::-1], axis=1)[:, ::-1] for counts in (defect, good))
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
    """Return F1Score, TPR, TNR, accuracy, precision and recall, each (b,), from counts (b,); NaN where undefined."""
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


def logit_interval(
    values: Table,
    method: str,
    confidence: float = CONFIDENCE,
    lack: str | None = None,
    smallest: int | None = None,
    *,
    is_maximum: bool = False,
) -> Interval:
    """Return the interval of a metric in [0, 1]: normal on the logit scale, with the spread of the resamples.

    Percentile intervals of the resamples cover too little where a metric is near 0 or 1, or is a maximum over many
    thresholds as F1Max is (at 40 images of a class 73 % instead of 95 %). Resamples of few images vary too little, so
    the spread is widened by Student's t for the smaller class. A maximum is too high on the images that it was found
    on; the resamples' own excess shows by how much, and the middle lies lower by it.

    Args:
        values: (1 + b,): the metric of the images as they are, then of b resamples; NaN where it has none.
        method: What the interval's `method` says.
        confidence: Of the interval.
        lack: Why there is none, if so.
        smallest: Images, or groups, of the smaller class; None: the spread is taken as it is.
        is_maximum: Whether the metric is a maximum over thresholds.
    """
    value, resampled = float(values[0]), values[1:][~np.isnan(values[1:])]
    if lack:
        return Interval(None, None, lack)
    if not resampled.size or np.isnan(value):
        return Interval(None, None, "the metric has no value on any draw")
    if resampled.min() == resampled.max():
        return Interval(None, None, "every draw gives the same value, which says nothing of other images")
    inner = resampled[(resampled > 0) & (resampled < 1)]
    nearest = min(inner.min(initial=0.5), 1 - inner.max(initial=0.5)) / 2  # stands for 0 and 1, whose logit is infinite
    draws = logit(np.clip(resampled, nearest, 1 - nearest))
    half = _quantile(confidence, smallest) * float(draws.std(ddof=1))
    middle = float(logit(np.clip(value, nearest, 1 - nearest)))
    if is_maximum:
        middle -= float(draws.mean()) - middle
    low, high = (0.0 if value <= 0 else float(expit(middle - half)), 1.0 if value >= 1 else float(expit(middle + half)))
    high = max(high, value)  # that of a lowered middle may lie below
    usable = "" if resampled.size == values.size - 1 else f", {resampled.size} usable"
    return Interval(low, high, f"{method}{usable}, logit")


def _quantile(confidence: float, smallest: int | None) -> float:
    """Return by how many standard deviations of the resamples an interval reaches to either side."""
    if smallest is None or smallest < 2:
        return critical_value(confidence)
    return float(stdtrit(smallest - 1, (1 + confidence) / 2)) * math.sqrt(smallest / (smallest - 1))


def _by_step(resamples: NDArray[np.floating], step: NDArray[np.integer]) -> Table:
    """Sum the counts (b, n) of the images that share a step of the scores: (b, k)."""
    order = np.argsort(step, kind="stable")
    starts = np.searchsorted(step[order], np.arange(int(step.max(initial=-1)) + 1))
    if not starts.size:
        return np.zeros((len(resamples), 1))
    return np.add.reduceat(resamples[:, order].astype(np.float64), starts, axis=1)
