"""Reading of a curve of a metric against the number of good images that a model was fitted on."""

from collections.abc import Mapping
from dataclasses import dataclass

from defectlab.evaluation.intervals import CONFIDENCE, mean_and_interval

MARGIN = 0.005  # of an AUROC: a smaller loss is none
MIN_EQUAL = 5  # draws: fewer with the same difference, as at an AUROC of 1, have a deviation of 0 that means nothing


@dataclass(frozen=True)
class CurvePoint:
    """Mean of a metric over `draws` draws of `k` images, and Student's t interval of the mean, clipped to [0, 1].

    `loss` is by how much the mean lies below that of the largest number, with `loss_low` and `loss_high` from the
    difference of each draw; None where the two have no draw in common. There is no interval of a single draw, which is
    what there is of all images, nor one of the loss from fewer than `MIN_EQUAL` draws that all have the same.
    """

    k: int
    draws: int
    mean: float
    low: float | None
    high: float | None
    loss: float | None
    loss_low: float | None
    loss_high: float | None


@dataclass(frozen=True)
class KShotCurve:
    """A curve, the number of images from which on more no longer help (None: it cannot be told), and that in words.

    `images` is how many training images there are.
    """

    images: int
    points: tuple[CurvePoint, ...]
    enough: int | None
    reading: str


def read_curve(
    values: Mapping[int, Mapping[int, float]], images: int, *, margin: float = MARGIN, confidence: float = CONFIDENCE
) -> KShotCurve:
    """Read a curve of a metric in [0, 1], higher being better.

    The mean is over draws of k of these training images, tested on these test images, and its interval says how much
    it depends on which images were drawn, not how it would be with others of either kind. Draws of many of the images
    are alike, so that the last points vary less by that alone, and the point of all images not at all.

    More images no longer help from the smallest k on for which the upper end of the interval of the loss, the mean
    difference to the largest number, is at most `margin`, and for all larger ones. Draws are nested, so the differences
    are those of each draw to its own continuation, whose interval is narrower than that of independent draws.

    Args:
        values: The metric by number of images and draw.
        images: Training images there are. A draw of so many is all of them, and stands for every draw.
        margin: The loss that does not count.
        confidence: Of the intervals.
    """
    numbers = sorted(k for k, its in values.items() if its)
    points = tuple(_point(k, values[k], _ends(values[numbers[-1]], numbers[-1] == images, values[k]), confidence)
                   for k in numbers)  # fmt: skip
    enough = None
    for point in reversed(points[:-1]):
        if point.loss_high is None or point.loss_high > margin:
            break
        enough = point.k
    return KShotCurve(images, points, enough, _reading(points, enough, images, margin, confidence))


def _ends(last: Mapping[int, float], is_whole: bool, its: Mapping[int, float]) -> Mapping[int, float]:
    """Return the values of the largest number by draw; that of all images is that of every draw."""
    return dict.fromkeys(its, next(iter(last.values()))) if is_whole else last


def _point(k: int, its: Mapping[int, float], last: Mapping[int, float], confidence: float) -> CurvePoint:
    mean, _, low, high = mean_and_interval(list(its.values()), confidence)
    if low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    differences = [last[draw] - value for draw, value in its.items() if draw in last]
    loss, _, loss_low, loss_high = mean_and_interval(differences, confidence) if differences else (None,) * 4
    if last is not its and len(differences) < MIN_EQUAL and len({round(one, 12) for one in differences}) == 1:
        loss_low = loss_high = None
    return CurvePoint(k, len(its), mean, low, high, loss, loss_low, loss_high)


def _reading(points: tuple[CurvePoint, ...], enough: int | None, images: int, margin: float, confidence: float) -> str:
    """Return in words from which number on more images no longer help, or why that cannot be told."""
    unknown = "It cannot be told how many images are enough: "
    if not points:
        return f"{unknown}the metric has no value."
    if len(points) == 1:
        return f"{unknown}only {_images(points[0].k, images)} were tried."
    before, last = points[-2:]
    most = _images(last.k, images)
    if enough is not None:
        point = next(point for point in points if point.k == enough)
        beyond = "" if last.k == images else f" More than {last.k} were not tried."
        better = max(points[:-1], key=lambda point: point.mean)
        if better.loss_low is not None and better.loss_high is not None and better.loss_high < 0:
            gain = f"{-better.loss_high:.4f} to {-better.loss_low:.4f}"
            beyond = f" {most[0].upper()}{most[1:]} do worse than {better.k}, by {gain}.{beyond}"
        return (
            f"More than {_good(enough)} no longer help: with {enough} or more the mean is at most {margin:g} "
            f"below that of {most}, by the {confidence:.0%} interval over {point.draws} draws.{beyond}"
        )
    if before.loss_low is None or before.loss_high is None:
        few = "one draw of each number says" if before.draws == 1 else f"{before.draws} draws that are all alike say"
        return f"{unknown}{few} nothing of others. Take {MIN_EQUAL} or more (k_shot_draws)."
    step = f"from {before.k} to {most} it gains {before.loss_low:.4f} to {before.loss_high:.4f}"
    if before.loss_low > 0:
        return f"{unknown}the curve still rises at its end, {step} ({confidence:.0%} interval)."
    return (
        f"{unknown}{step} ({confidence:.0%} interval), which is wider than the margin of {margin:g}. More draws "
        "(k_shot_draws) would tell."
    )


def _good(k: int) -> str:
    return f"{k} good image{'s' * (k > 1)}"


def _images(k: int, images: int) -> str:
    return f"all {k} images" if k == images else f"{k} image{'s' * (k > 1)}"
