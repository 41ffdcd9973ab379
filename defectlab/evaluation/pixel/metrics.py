"""All pixel metrics of a set of images, exact and within a bound on memory, from `blocks`."""

import numpy as np
from numpy.typing import NDArray

from defectlab.evaluation.metrics import Floats, Metric, caught_at, confusion_rates, missing_class, no_threshold
from defectlab.evaluation.pixel.blocks import MEMORY, Blocks, Counts, Steps, Survey
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, PixelImages
from defectlab.utils.errors import InputError

FPR_LIMIT = 0.3
THRESHOLD_FREE = ("AUROC", "F1Max", "AUPR", "FPR_at_95TPR", "AUPRO")
NAMES = ("AUROC", "F1Score", *THRESHOLD_FREE[1:4], "TPR", "TNR", "accuracy", "precision", "recall", "AUPRO")


def pixel_metrics(
    images: PixelImages,
    *,
    threshold: float | None = None,
    fpr_limit: float = FPR_LIMIT,
    memory: int = MEMORY,
) -> dict[str, Metric]:
    """Compute AUROC, AUPR, F1Max, FPR_at_95TPR, AUPRO, and at the threshold F1Score, TPR, TNR, accuracy and the like.

    Args:
        images: Maps and masks. Infinite scores are ordered as numbers are.
        threshold: A pixel is called a defect above it.
        fpr_limit: AUPRO is the area up to this false-positive rate, in (0, 1].
        memory: Bytes that the pixels held at one time may take, beside one whole image and up to 200 MB of counts. It
            decides the number of blocks, never the result.

    Raises:
        InputError: The limit is not in (0, 1].
    """
    if not 0 < fpr_limit <= 1:
        raise InputError(f"The limit of the false-positive rate must be in (0, 1], got {fpr_limit}.")
    blocks = Blocks(images, memory)
    survey = blocks.survey(threshold)
    if survey.nan:
        return no_metrics(f"{survey.nan} of {survey.defect + survey.good} scores are NaN")
    found = _at_threshold(survey, threshold)
    no_defect = missing_class(survey.defect, survey.good, needs_good=False)
    no_class = missing_class(survey.defect, survey.good, needs_good=True)
    tally = _Tally(survey, fpr_limit)
    if no_defect is None:
        for steps in blocks.steps(survey):
            tally.add(steps)
    found |= {
        "AUROC": Metric(None, no_class) if no_class else tally.auroc(),
        "F1Max": Metric(None, no_defect) if no_defect else Metric(tally.f1_max),
        "AUPR": Metric(None, no_defect) if no_defect else Metric(tally.precision_sum / survey.defect),
        "FPR_at_95TPR": Metric(None, no_class) if no_class else Metric(tally.flagged / survey.good),
        "AUPRO": tally.aupro(),
    }
    return {name: found[name] for name in NAMES}


def no_metrics(reason: str | None) -> dict[str, Metric]:
    """Return every pixel metric without a value, for one reason."""
    return {name: Metric(None, reason) for name in NAMES}


def _at_threshold(survey: Survey, threshold: float | None) -> dict[str, Metric]:
    lack = no_threshold(threshold)
    reason = missing_class(survey.defect, survey.good, needs_good=False) or lack
    counts = survey.confusion
    if reason or counts is None:
        f1 = Metric(None, reason)
    else:
        f1 = Metric(2 * counts.tp / (2 * counts.tp + counts.fp + counts.fn))
    return {"F1Score": f1, **confusion_rates(counts, lack)}


class _Tally:
    """Sums over ascending steps. `precision_sum` runs one by one in the order of the scores, whatever the ranges."""

    def __init__(self, survey: Survey, fpr_limit: float) -> None:
        self._survey = survey
        self._last_caught = survey.defect - caught_at(0.95, survey.defect)  # position of the cut, ascending
        self._limit = fpr_limit * survey.good
        self._rank_sum = 0
        self.precision_sum = 0.0
        self.f1_max = 0.0
        self.flagged = 0
        regions = survey.sizes.size
        self._whole = np.zeros(regions, dtype=np.int64)  # pixels of each region flagged below the limit
        self._passed = np.zeros(regions, dtype=np.int64)  # twice the good pixels above each, added up
        self._cut = np.zeros(regions, dtype=np.int64)  # pixels flagged in the very step that passes the limit
        self._cut_area = 0.0

    def add(self, steps: Steps) -> None:
        """Take the next range of scores."""
        defect, good = self._survey.defect, self._survey.good
        self._rank_sum += int((steps.ties * (steps.below + steps.upto)).sum())
        tp, fp = defect - steps.before, good - steps.below
        self.precision_sum = _add(self.precision_sum, steps.ties * (tp / (tp + fp)))
        self.f1_max = max(self.f1_max, float((2 * tp / (tp + fp + defect)).max()))
        cut = (steps.before <= self._last_caught) & (self._last_caught < steps.before + steps.ties)
        self.flagged += int(fp[cut].sum())
        if good:
            self._add_overlap(steps)

    def _add_overlap(self, steps: Steps) -> None:
        """Add what each defect pixel holds of the area under its region's overlap, up to the limit.

        A pixel is flagged from the rate on at which its score is reached: above it `above` good pixels are flagged
        before, and `tied` in the same step, along which the curve rises straight.
        """
        above, tied = self._survey.good - steps.upto, steps.upto - steps.below
        whole = above + tied <= self._limit
        inside = whole[steps.step]
        regions = self._survey.sizes.size
        region, pixels = steps.region[inside], steps.pixels[inside]
        self._whole += _by_region(region, pixels, regions)
        self._passed += _by_region(region, pixels * (2 * above + tied)[steps.step[inside]], regions)
        (partly,) = np.nonzero(~whole & (above < self._limit))
        for place in partly:  # one at most: it holds the limit
            here = steps.step == place
            self._cut += _by_region(steps.region[here], steps.pixels[here], regions)
            self._cut_area = float((self._limit - above[place]) ** 2 / (2 * tied[place]))

    def auroc(self) -> Metric:
        """Share of pairs of a defect and a good pixel in the right order, ties half."""
        return Metric(self._rank_sum / (2 * self._survey.defect * self._survey.good))

    def aupro(self) -> Metric:
        """Mean over regions of the area under their overlap, by the limit."""
        if not self._survey.defect or not self._survey.good:
            lack = "good" if self._survey.defect else "anomalous"
            return Metric(None, f"there is no {lack} pixel among the labelled ones")
        areas = self._whole * self._limit - self._passed / 2 + self._cut * self._cut_area
        return Metric(min(float((areas / self._survey.sizes).mean() / self._limit), 1.0))


def _add(total: float, terms: NDArray[np.generic]) -> float:
    return float(np.cumsum(np.concatenate([[total], terms]))[-1])


def _by_region(region: Counts, values: Counts, regions: int) -> Counts:
    """Add up whole numbers by region; float64 holds them exactly up to 2 ** 53."""
    return np.bincount(region, weights=values, minlength=regions).astype(np.int64)


def aupro(maps: Floats, masks: NDArray[np.bool_], fpr_limit: float = FPR_LIMIT) -> Metric:
    """Return AUPRO, in [0, 1], of maps (n, H, W) float32 and masks (n, H, W).

    Raises:
        InputError: The shapes differ, or the limit is not in (0, 1].
    """
    return pixel_metrics(ArrayImages(maps, masks), fpr_limit=fpr_limit)["AUPRO"]
