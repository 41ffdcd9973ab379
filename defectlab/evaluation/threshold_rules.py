"""Threshold rules by name, applied to validation scores. A score above the threshold is anomalous."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from defectlab.evaluation.metrics import Floats, SortedScores, f1_curve, sort_scores
from defectlab.evaluation.threshold import RULE_OPTIONS, RuleOptions, Threshold, check_options, midpoint
from defectlab_runtime.decision import round_down
from defectlab_runtime.errors import OptionError


def choose(rule: str, scores: ArrayLike, labels: ArrayLike, options: RuleOptions, source: str) -> Threshold:
    """Choose a threshold by a named rule from scores (n,) and labels (n,): 0 good, 1 anomalous, -1 left out.

    Raises:
        OptionError: No such rule, an option that cannot work, or images that the rule needs and are not there.
    """
    check_options(rule, options)
    ordered = sort_scores(scores, labels)
    if ordered.problem:
        raise OptionError(f"Rule {rule}: {ordered.problem}.")
    return RULES[rule](ordered.negatives, ordered.positives, options, source)


def choose_image_threshold(scores: ArrayLike, labels: ArrayLike, *, source: str = "validation") -> Threshold:
    """Choose the image threshold by F1, or just above the largest score where there are no anomalous images."""
    ordered = sort_scores(scores, labels)
    if ordered.problem:
        return Threshold(None, "none", source, ordered.problem)
    if ordered.positives.size and ordered.negatives.size:
        return f1_threshold(ordered, "images", source)
    if ordered.positives.size:
        return Threshold(None, "none", source, f"{source} has anomalous images only: nothing says what is good")
    return good_max_threshold(ordered.negatives, source, context=f"{source} has no anomalous images; ")


def f1_threshold(scores: SortedScores, unit: str = "scores", source: str = "validation") -> Threshold:
    """Choose the threshold that maximises F1, halfway between two neighbouring distinct scores.

    Flagging everything is a candidate too, just below the smallest score. Where several thresholds reach the same F1
    the highest wins: the fewest alarms.

    Args:
        scores: Of good and anomalous ones.
        unit: What is scored, as the reason calls it.
        source: The images that they are of.

    >>> f1_threshold(sort_scores([1.0, 2.0, 3.0, 5.0], [0, 0, 1, 1])).value
    2.5
    """
    if scores.problem:
        return Threshold(None, "none", source, scores.problem)
    values, f1 = f1_curve(scores)
    usable = values > -np.inf  # no number lies below -inf: such scores cannot be flagged
    values, f1 = values[usable], f1[usable]
    if not values.size:
        lack = "all anomalous ones score -inf" if scores.positives.size else "none is anomalous"
        return Threshold(None, "none", source, f"no F1 over the {unit} of {source}: {lack}")
    best = int(f1.argmax())  # the first of equals: cuts descend
    below = _next_lower(float(values[best]), scores.negatives, scores.positives)
    counts = f"{scores.positives.size} anomalous and {scores.negatives.size} good {unit} of {source}"
    return f1_threshold_between(below, float(values[best]), float(f1[best]), counts, source)


def f1_threshold_between(below: float | None, value: float, f1: float, counts: str, source: str) -> Threshold:
    """Return the F1 threshold between the lowest flagged score `value` and the next lower one (`below`, or None)."""
    return Threshold(_between(below, value), "f1", source, f"highest F1 ({f1:.4f}) over {counts}")


def good_max_threshold(
    good_scores: ArrayLike, source: str = "validation", *, context: str = "", largest_of: str = ""
) -> Threshold:
    """Choose the next float64 above the largest score of held-out good images, so that none of them is flagged.

    Args:
        good_scores: (n,)
        source: The images that they are of.
        context: Put before the reason.
        largest_of: What the threshold lies above, as the reason calls it.

    >>> good_max_threshold([0.5, 2.0]).value > 2.0
    True
    """
    values = np.asarray(good_scores)
    largest = float(values.max()) if values.size else math.nan
    if not values.size:
        reason = "there are no good scores to choose from"
    elif math.isnan(largest):
        reason = "some of the good scores are NaN"
    elif largest == math.inf:
        reason = "a good score is infinite: nothing lies above it"
    else:
        reason = f"just above the {largest_of or f'largest of {values.size} good scores'}"
        return Threshold(math.nextafter(largest, math.inf), "good_max", source, f"{context}{reason}")
    return Threshold(None, "none", source, f"{context}{reason}")


def mean_of_means(good: Iterable[Floats], bad: Iterable[Floats], source: str) -> Threshold:
    """Choose the threshold midway between the means of good and anomalous scores, each given in chunks of any size.

    Raises:
        OptionError: One kind is missing, or there is no finite mean.
    """
    (good_count, good_sum), (bad_count, bad_sum) = _sum(good), _sum(bad)
    require_classes("mean_of_means", good_count, bad_count, source, needs_bad=True)
    value = (good_sum / good_count + bad_sum / bad_count) / 2
    reason = f"midway between the means of {good_count} good and {bad_count} anomalous scores"
    return make_threshold("mean_of_means", value, source, reason)


def mean_plus_k_std(good: Iterable[Floats], k: float, source: str, bad: int = 0) -> Threshold:
    """Choose the threshold k population standard deviations above the mean of good scores, given in chunks.

    `good` is iterated twice; `bad` is the number of anomalous scores, which only the error message uses.

    Raises:
        OptionError: There is no good score, or no finite mean.
    """
    count, total = _sum(good)
    require_classes("mean_plus_k_std", count, bad, source)
    mean = total / count
    with np.errstate(invalid="ignore"):  # an infinite score leaves no finite threshold, which is refused below
        squares = sum(float(np.square(chunk.astype(np.float64) - mean).sum()) for chunk in good)
        value = mean + k * math.sqrt(squares / count)
    return make_threshold("mean_plus_k_std", value, source, f"mean + {k:g} standard deviations of {count} good scores")


def images_needed(false_alarm_rate: float) -> int:
    """Return how many held-out good images the conformal rule needs for a given false-alarm rate.

    >>> images_needed(0.05), images_needed(0.01)
    (19, 99)
    """
    return math.ceil(round(1 / false_alarm_rate, 9)) - 1


def conformal_upper_bound(rank: int, count: int, confidence: float = 0.95) -> float:
    """Return the upper confidence bound of the false-alarm rate of a conformal threshold from one held-out set.

    The share of all good images above the score of this rank of `count` is distributed as Beta(count + 1 - rank, rank)
    over held-out sets, for any continuous distribution of the scores (Vovk, 2012).

    >>> round(conformal_upper_bound(99, 99), 4), round(conformal_upper_bound(990, 999), 4)
    (0.0298, 0.0157)
    """
    from scipy.stats import beta

    return float(beta.ppf(confidence, count + 1 - rank, rank))


def recall_lower_bound(caught: int, total: int, confidence: float = 0.95) -> float:
    """Return the exact one-sided binomial lower bound of a proportion (Clopper and Pearson, 1934).

    >>> round(recall_lower_bound(20, 20), 4)  # 0.05 ** (1 / 20)
    0.8609
    """
    from scipy.stats import beta

    return float(beta.ppf(1 - confidence, caught, total - caught + 1)) if caught else 0.0


def recall_value(good: Floats, bad: Floats, recall: float) -> tuple[float, int]:
    """Return the threshold that catches at least the share `recall` of anomalous scores, and the number caught.

    Both arrays must be in ascending order; of the good scores only the next one below the cut affects the result.
    """
    cut = recall_cut(bad, recall)
    caught = bad.size - int(np.searchsorted(bad, bad.dtype.type(cut), "left"))  # with those that tie
    return _between(_next_lower(cut, good, bad), cut), caught


def recall_cut(ascending: Floats, recall: float) -> float:
    """Return the highest of ascending anomalous scores (n,) that at least the share `recall` of them reaches.

    >>> recall_cut(np.array([1.0, 2.0, 3.0, 4.0]), 0.75)
    2.0
    """
    return float(ascending[ascending.size - max(1, math.ceil(round(recall * ascending.size, 9)))])


def _f1(good: Floats, bad: Floats, _options: RuleOptions, source: str) -> Threshold:
    require_classes("f1", good.size, bad.size, source, needs_bad=True)
    return f1_threshold(SortedScores(bad, good), source=source)


def _good_max(good: Floats, bad: Floats, _options: RuleOptions, source: str) -> Threshold:
    require_classes("good_max", good.size, bad.size, source)
    return good_max_threshold(good, source)


def _mean_of_means(good: Floats, bad: Floats, _options: RuleOptions, source: str) -> Threshold:
    return mean_of_means([good], [bad], source)


def _mean_plus_k_std(good: Floats, bad: Floats, options: RuleOptions, source: str) -> Threshold:
    return mean_plus_k_std([good], options.k, source, bad.size)


def _quantile(good: Floats, bad: Floats, options: RuleOptions, source: str) -> Threshold:
    require_classes("quantile", good.size, bad.size, source)
    rate = options.false_alarm_rate
    value = float(good[max(0, good.size - math.floor(round(rate * good.size, 9)) - 1)])
    flagged = int((good > value).sum())
    reason = f"{flagged} of {good.size} good scores lie above it (asked: at most {rate:g}); no guarantee for new images"
    return make_threshold("quantile", value, source, reason)


def _conformal(good: Floats, bad: Floats, options: RuleOptions, source: str) -> Threshold:
    """Split-conformal bound (Vovk et al., 2005; Bates et al., 2023): a new good image is flagged with P <= rate."""
    require_classes("conformal", good.size, bad.size, source)
    rate = options.false_alarm_rate
    rank = max(1, math.ceil(round((good.size + 1) * (1 - rate), 9)))
    if rank > good.size:
        raise OptionError(
            f"A false-alarm rate of {rate:g} needs at least {images_needed(rate)} held-out good images, and {source} "
            f"has {good.size}; with these the lowest is {1 / (good.size + 1):.4g}. Hold out more good images "
            "(val_split_mode, val_split_ratio, calibration_share), or ask for a higher rate."
        )
    promise = (
        f"a new good image of the same kind is flagged with a probability of at most {rate:g}, on average over such "
        f"held-out sets (it takes at least {images_needed(rate)} images); with this very set, by 95 % confidence, at "
        f"most {conformal_upper_bound(rank, good.size):.3g}"
    )
    reason = f"score {rank} of {good.size} held-out good ones, for a false-alarm rate of {rate:g}"
    return replace(make_threshold("conformal", float(good[rank - 1]), source, reason), promise=promise)


def _recall(good: Floats, bad: Floats, options: RuleOptions, source: str) -> Threshold:
    require_classes("recall", good.size, bad.size, source, needs_bad=True, needs_good=False)
    value, caught = recall_value(good, bad, options.recall)
    promise = f"with 95 % confidence at least {recall_lower_bound(caught, bad.size):.3f} of all such defects"
    reason = f"catches {caught} of {bad.size} anomalous images of {source}"
    return replace(make_threshold("recall", value, source, reason), promise=promise)


def _cost(good: Floats, bad: Floats, options: RuleOptions, source: str) -> Threshold:
    require_classes("cost", good.size, bad.size, source, needs_bad=True)
    miss, alarm, share = options.miss_cost, options.false_alarm_cost, options.defect_share
    assert miss is not None  # all three are checked by `choose`
    assert alarm is not None
    assert share is not None
    scores = np.unique(np.concatenate([good, bad]).astype(np.float64))
    # flag all above scores[i - 1]: everything for i = 0, nothing for i = len(scores)
    cuts = np.concatenate([[-np.inf], scores])
    missed = np.searchsorted(bad.astype(np.float64), cuts, "right") / bad.size
    alarms = 1 - np.searchsorted(good.astype(np.float64), cuts, "right") / good.size
    costs = share * miss * missed + (1 - share) * alarm * alarms
    best = int(len(costs) - 1 - np.argmin(costs[::-1]))  # of equals the highest: the fewest alarms
    if best == len(scores):
        value = math.nextafter(float(scores[-1]), math.inf)
    else:
        value = _between(float(scores[best - 1]) if best else None, float(scores[best]))
    reason = (
        f"lowest expected cost a part ({costs[best]:.4g}) at a defect share of {share:g}, a miss at "
        f"{miss:g} and a false alarm at {alarm:g}: misses {missed[best]:.3f}, "
        f"false alarms {alarms[best]:.3f} on {bad.size} anomalous and {good.size} good images of {source}"
    )
    return make_threshold("cost", value, source, reason)


def _manual(_good: Floats, _bad: Floats, options: RuleOptions, _source: str) -> Threshold:
    assert options.value is not None  # checked by `choose`
    return Threshold(float(options.value), "manual", "the user", "given by hand")


RULES: dict[str, Callable[[Floats, Floats, RuleOptions, str], Threshold]] = {
    "f1": _f1,
    "good_max": _good_max,
    "mean_of_means": _mean_of_means,
    "mean_plus_k_std": _mean_plus_k_std,
    "quantile": _quantile,
    "conformal": _conformal,
    "recall": _recall,
    "cost": _cost,
    "manual": _manual,
}
assert RULES.keys() == RULE_OPTIONS.keys()


def make_threshold(rule: str, value: float, source: str, reason: str) -> Threshold:
    """Return the threshold that a rule computed, after checking that its value is finite.

    Raises:
        OptionError: It is not finite.
    """
    if not math.isfinite(value):
        raise OptionError(
            f"Rule {rule} gives no finite threshold ({value}): some scores are infinite or NaN. Use rule f1."
        )
    return Threshold(value, rule, source, reason)


def require_classes(
    rule: str, good: int, bad: int, source: str, *, needs_bad: bool = False, needs_good: bool = True
) -> None:
    """Check that the good and anomalous scores that a rule needs are present.

    Raises:
        OptionError: With what is missing, and the rules that work without it.
    """
    classes = (("good", good, needs_good), ("anomalous", bad, needs_bad))
    lacks = [name for name, count, needed in classes if needed and not count]
    if lacks:
        alternative = "conformal, quantile, mean_plus_k_std and good_max" if good else "manual"
        raise OptionError(
            f"Rule {rule} needs {' and '.join(lacks)} images, and {source} has none. "
            f"What works with these images: {alternative}."
        )


def _sum(chunks: Iterable[Floats]) -> tuple[int, float]:
    """Return the number and the sum of the scores in all chunks."""
    count, total = 0, 0.0
    for chunk in chunks:
        count, total = count + chunk.size, total + float(np.sum(chunk, dtype=np.float64))
    return count, total


def _next_lower(cut: float, good: Floats, bad: Floats) -> float | None:
    """Return the highest score below a cut from two ascending arrays, or None if no score is below the cut."""
    lower = [
        float(part[at - 1])
        for part in (good, bad)
        if (at := int(np.searchsorted(part, round_down(cut, part.dtype.type), "left"))) > 0
    ]
    return max(lower, default=None)


def _between(below: float | None, value: float) -> float:
    """Return a threshold that flags `value` but not `below`: the midpoint, or just under `value` without `below`."""
    return math.nextafter(value, -math.inf) if below is None else midpoint(below, value)
