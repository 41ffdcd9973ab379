"""Exact map thresholds, chosen from pixels image by image within the memory limit of the pixel metrics."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab.evaluation.metrics import Floats
from defectlab.evaluation.pixel.blocks import MEMORY, Blocks, PixelSummary
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, ImageSubset, PixelImages
from defectlab.evaluation.threshold import RuleOptions, Threshold, check_options
from defectlab.evaluation.threshold_rules import (
    choose,
    f1_threshold_between,
    good_max_threshold,
    make_threshold,
    mean_of_means,
    mean_plus_k_std,
    recall_cut,
    recall_value,
    require_classes,
)
from defectlab_runtime.errors import OptionError

# Rules that look at one image at a time: at each good image's highest pixel.
BY_IMAGE = ("good_max", "conformal", "quantile")
BY_GOOD_PIXELS = ("mean_plus_k_std",)

Masks = NDArray[np.bool_] | NDArray[np.uint8] | None


def choose_pixel_threshold(
    maps: Floats, masks: Masks, labels: ArrayLike, *, source: str = "validation", memory: int = MEMORY
) -> Threshold:
    """Choose the map threshold from maps (n, H, W), masks (n, H, W), or packed, or None, and image labels (n,).

    By F1 over pixels where masks mark both kinds, else above the highest pixel of the good images. `memory` is that of
    `pixel_metrics`.
    """
    known = np.asarray(labels)
    lack = "has no masks"
    if masks is not None:
        blocks = Blocks(_labelled(maps, masks, known), memory)
        summary = blocks.summarize(None)
        if summary.defect:
            return _f1(blocks, summary, source)
        lack = "has no anomalous pixels"
    good = _good_maps(maps, known)
    return good_max_threshold(
        [float(one.max()) for one in good],
        source,
        context=f"{source} {lack}; ",
        largest_of=f"highest of {sum(one.size for one in good)} pixels of {len(good)} good images",
    )


def choose_by_pixels(
    rule: str,
    maps: Floats,
    masks: Masks,
    labels: ArrayLike,
    options: RuleOptions,
    source: str,
    groups: Sequence[str] | None = None,
) -> Threshold:
    """Choose the map threshold by a named rule; arguments as of `choose_pixel_threshold`, rules as of `choose`.

    `groups` (n,) name the part that each image shows, where parts have several: conformal takes the highest pixel
    of each part whose images are all good then, for its guarantee is of what is independent.

    good_max, quantile and conformal take each good image's highest pixel, mean_plus_k_std the pixels of good images,
    f1, mean_of_means and recall the pixels by their masks.

    Raises:
        OptionError: No such rule, masks that it needs and are not there, or as `threshold_rules.choose`.
    """
    check_options(rule, options)
    known = np.asarray(labels)
    if rule == "manual":
        return choose(rule, [], [], options, source)
    good = _good_maps(maps, known)
    if rule in BY_IMAGE:
        highest = [float(one.max()) for one in good]
        if rule == "conformal" and groups is not None:
            highest = _highest_by_good_group(highest, known, groups)
        return choose(rule, highest, [0] * len(highest), options, source)
    if rule in BY_GOOD_PIXELS:
        return mean_plus_k_std(good, options.k, source)
    if masks is None:
        by_good = ", ".join((*BY_IMAGE, *BY_GOOD_PIXELS))
        raise OptionError(
            f"Rule {rule} needs masks at pixel level, and this dataset has none. Give --level image, or for pixels one "
            f"of {by_good}."
        )
    return _by_masks(rule, _labelled(maps, masks, known), options, source)


def _good_maps(maps: Floats, labels: NDArray[np.integer]) -> list[Floats]:
    return [maps[index] for index in np.flatnonzero(labels == 0)]  # views of what is on disk


def _labelled(maps: Floats, masks: NDArray[np.bool_] | NDArray[np.uint8], labels: NDArray[np.integer]) -> ImageSubset:
    return ImageSubset(ArrayImages(maps, masks), np.flatnonzero(labels >= 0).tolist())


def _highest_by_good_group(scores: Sequence[float], labels: NDArray[np.integer], groups: Sequence[str]) -> list[float]:
    """Return the highest score of each part whose images are all good; `scores` are those of the good images only.

    A part with an anomalous image is anomalous: its good images must not stand for a good part.
    """
    anomalous = {group for group, label in zip(groups, labels.tolist(), strict=True) if label == 1}
    of_good = [group for group, label in zip(groups, labels.tolist(), strict=True) if label == 0]
    highest: dict[str, float] = {}
    for score, group in zip(scores, of_good, strict=True):
        if group not in anomalous:
            highest[group] = float(np.maximum(highest.get(group, -np.inf), score))  # NaN stays NaN
    return list(highest.values())


def _by_masks(rule: str, images: PixelImages, options: RuleOptions, source: str) -> Threshold:
    blocks = Blocks(images)
    summary = blocks.summarize(None)
    if summary.nan:
        raise OptionError(f"Rule {rule}: {summary.nan} of {summary.defect + summary.good} scores are NaN.")
    if rule == "mean_of_means":
        return mean_of_means(_Pixels(images, marked=False), _Pixels(images, marked=True), source)
    if rule == "recall":
        return _recall(images, options, source)
    require_classes(rule, summary.good, summary.defect, source, needs_bad=True)
    return _f1(blocks, summary, source)


class _Pixels:
    """The scores of all defect or all good pixels, image by image; can be iterated repeatedly."""

    def __init__(self, images: PixelImages, *, marked: bool) -> None:
        self._images = images
        self._marked = marked

    def __iter__(self) -> Iterator[Floats]:
        for index in range(len(self._images.sizes)):
            mask = self._images.mask(index)
            yield self._images.map(index)[mask if self._marked else ~mask]


def _recall(images: PixelImages, options: RuleOptions, source: str) -> Threshold:
    """Choose the map threshold by recall from all defect pixels and each image's highest good pixel below the cut."""
    bad = np.sort(np.concatenate([np.empty(0, np.float32), *_Pixels(images, marked=True)]))
    lower: list[float] = []
    if bad.size:
        cut = np.float32(recall_cut(bad, options.recall))
        highest = (_highest_below(pixels, cut) for pixels in _Pixels(images, marked=False))
        lower = [score for score in highest if score is not None]
    good = np.sort(np.array(lower, dtype=np.float32))
    require_classes("recall", good.size, bad.size, source, needs_bad=True, needs_good=False)
    value, caught = recall_value(good, bad, options.recall)
    lack = "pixels of one image are not independent, so nothing is said of other images"
    return make_threshold("recall", value, source, f"catches {caught} of {bad.size} defect pixels of {source}; {lack}")


def _f1(blocks: Blocks, summary: PixelSummary, source: str) -> Threshold:
    """Choose the map threshold by F1 over all pixels, some of which must be defect pixels."""
    if not summary.good:
        return Threshold(None, "none", source, f"the masks of {source} cover every pixel: nothing says what is good")
    if summary.nan:
        return Threshold(None, "none", source, f"{summary.nan} of {summary.defect + summary.good} scores are NaN")
    best, value = -1.0, np.float32(-np.inf)
    for steps in blocks.steps(summary):
        tp, fp = summary.defect - steps.defect_below, summary.good - steps.good_below
        # no number lies below -inf: such scores cannot be flagged
        f1 = np.where(steps.scores > -np.inf, 2 * tp / (tp + fp + summary.defect), -1.0)
        place = f1.size - 1 - int(f1[::-1].argmax())  # of equals the highest score: the fewest alarms
        if f1[place] >= max(best, 0.0):
            best, value = float(f1[place]), steps.scores[place]
    if best < 0:
        return Threshold(None, "none", source, f"no F1 over the pixels of {source}: all anomalous ones score -inf")
    images = blocks.images
    lower = [_highest_below(images.map(index), value) for index in range(len(images.sizes))]
    below = max((one for one in lower if one is not None), default=None)
    counts = f"{summary.defect} anomalous and {summary.good} good pixels of {source}"
    return f1_threshold_between(below, float(value), best, counts, source)


def _highest_below(scores: Floats, cut: np.floating) -> float | None:
    """Return the highest score below a cut, or None if no score is below the cut."""
    lower = scores[scores < cut]
    return float(lower.max()) if lower.size else None
