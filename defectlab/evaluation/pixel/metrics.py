"""Exact computation of all pixel metrics of a set of images within a memory limit, using `blocks`."""

import numpy as np
from numpy.typing import NDArray

from defectlab.evaluation.metrics import (
    Floats,
    Metric,
    confusion_rates,
    count_for_recall,
    missing_class,
    threshold_problem,
)
from defectlab.evaluation.pixel.blocks import MEMORY, Blocks, PixelSummary, ScoreSteps
from defectlab.evaluation.pixel.defect_pixels import Counts, sums
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, PixelImages
from defectlab_runtime.errors import InputError

FPR_LIMIT = 0.3
NAMES = (
    "AUROC", "F1Score", "F1Max", "AUPR", "FPR_at_95TPR", "TPR", "TNR", "accuracy", "precision", "recall", "AUPRO",
)  # fmt: skip


def pixel_metrics(
    images: PixelImages, *, threshold: float | None = None, fpr_limit: float = FPR_LIMIT, memory: int = MEMORY
) -> dict[str, Metric]:
    """Compute all pixel metrics: those over all thresholds, and those at `threshold`, in the order of `NAMES`.

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
    summary = blocks.summarize(threshold)
    if summary.nan:
        return undefined_metrics(f"{summary.nan} of {summary.defect + summary.good} scores are NaN")
    no_defect = missing_class(summary.defect, summary.good, needs_good=False)
    no_class = missing_class(summary.defect, summary.good, needs_good=True)
    curve, overlap = _CurveSums(summary), _RegionOverlap(summary, fpr_limit)
    if no_defect is None:
        for steps in blocks.steps(summary):
            curve.add(steps)
            overlap.add(steps)
    found = _at_threshold(summary, threshold) | {
        "AUROC": Metric(None, no_class) if no_class else Metric(curve.rank_sum / (2 * summary.defect * summary.good)),
        "F1Max": Metric(None, no_defect) if no_defect else Metric(curve.f1_max),
        "AUPR": Metric(None, no_defect) if no_defect else Metric(curve.precision_sum / summary.defect),
        "FPR_at_95TPR": Metric(None, no_class) if no_class else Metric(curve.flagged / summary.good),
        "AUPRO": overlap.aupro(),
    }
    return {name: found[name] for name in NAMES}


def undefined_metrics(reason: str | None) -> dict[str, Metric]:
    """Return every pixel metric as undefined, all with the same reason."""
    return {name: Metric(None, reason) for name in NAMES}


def _at_threshold(summary: PixelSummary, threshold: float | None) -> dict[str, Metric]:
    problem = threshold_problem(threshold)
    reason = missing_class(summary.defect, summary.good, needs_good=False) or problem
    counts = summary.confusion
    f1 = Metric(None, reason) if reason or counts is None else Metric(counts.f1)
    return {"F1Score": f1, **confusion_rates(counts, problem)}


class _CurveSums:
    """Running sums over ascending score steps from which AUROC, F1Max, AUPR and FPR_at_95TPR are computed.

    `rank_sum` counts pairs of a defect and a good pixel in the right order twice, ties once. `precision_sum` runs one
    by one in the order of the scores, whatever the ranges. `flagged` good pixels score at least as high as the lowest
    of the highest 95 % of the defect pixels.
    """

    def __init__(self, summary: PixelSummary) -> None:
        self._defect, self._good = summary.defect, summary.good
        self._last_caught = summary.defect - count_for_recall(0.95, summary.defect)  # position of the cut, ascending
        self.rank_sum = 0
        self.precision_sum = 0.0
        self.f1_max = 0.0
        self.flagged = 0

    def add(self, steps: ScoreSteps) -> None:
        """Add the next score steps, in ascending order, to the sums."""
        self.rank_sum += int((steps.ties * (steps.good_below + steps.good_up_to)).sum())
        tp, fp = self._defect - steps.defect_below, self._good - steps.good_below
        terms = steps.ties * (tp / (tp + fp))
        self.precision_sum = float(np.cumsum(np.concatenate([[self.precision_sum], terms]))[-1])
        self.f1_max = max(self.f1_max, float((2 * tp / (tp + fp + self._defect)).max()))
        cut = (steps.defect_below <= self._last_caught) & (self._last_caught < steps.defect_below + steps.ties)
        self.flagged += int(fp[cut].sum())


class _RegionOverlap:
    """Area under each region's overlap as a function of the number of flagged good pixels, up to a limit L.

    Each defect pixel of a region adds the area under its own curve, which is 0 until the `above` good pixels that score
    higher are flagged, rises linearly to 1 while the `tied` ones of the same score are flagged, and then stays 1:

        above + tied <= L:         L - above - tied / 2
        above < L < above + tied:  (L - above) ** 2 / (2 tied), for one score at most
        L <= above:                0

    The first is kept as two sums of whole numbers, so that the order of the pixels makes no difference.
    """

    def __init__(self, summary: PixelSummary, fpr_limit: float) -> None:
        self._summary = summary
        self._limit = fpr_limit * summary.good
        regions = summary.sizes.size
        self._pixels_below_limit = np.zeros(regions, dtype=np.int64)
        self._twice_passed = np.zeros(regions, dtype=np.int64)  # 2 above + tied, added up over these pixels
        self._pixels_at_limit = np.zeros(regions, dtype=np.int64)
        self._area_at_limit = 0.0  # of each of these pixels

    def add(self, steps: ScoreSteps) -> None:
        """Add the next score steps, in ascending order, to the sums."""
        above, tied = self._summary.good - steps.good_up_to, steps.good_up_to - steps.good_below
        below_limit = above + tied <= self._limit
        self._pixels_below_limit += self._by_region(steps, below_limit)
        self._twice_passed += self._by_region(steps, below_limit, 2 * above + tied)
        at_limit = ~below_limit & (above < self._limit)
        if at_limit.any():
            place = int(at_limit.argmax())
            self._pixels_at_limit += self._by_region(steps, at_limit)
            self._area_at_limit = float((self._limit - above[place]) ** 2 / (2 * tied[place]))

    def _by_region(self, steps: ScoreSteps, chosen: NDArray[np.bool_], weights: Counts | None = None) -> Counts:
        """Sum the pixels of the chosen steps (k,) by region, each multiplied by the weight (k,) of its step."""
        inside = chosen[steps.step]
        pixels = steps.pixels[inside]
        if weights is not None:
            pixels = pixels * weights[steps.step[inside]]
        return sums(steps.region[inside], pixels, self._summary.sizes.size)

    def aupro(self) -> Metric:
        """Return AUPRO: the mean over regions of the area under the overlap, divided by the limit."""
        if not self._summary.defect or not self._summary.good:
            lack = "good" if self._summary.defect else "anomalous"
            return Metric(None, f"there is no {lack} pixel among the labelled ones")
        areas = (
            self._pixels_below_limit * self._limit
            - self._twice_passed / 2
            + self._pixels_at_limit * self._area_at_limit
        )
        return Metric(min(float((areas / self._summary.sizes).mean() / self._limit), 1.0))


def aupro(maps: Floats, masks: NDArray[np.bool_], fpr_limit: float = FPR_LIMIT) -> Metric:
    """Return AUPRO, in [0, 1], of maps (n, H, W) float32 and masks (n, H, W).

    Raises:
        InputError: The shapes differ, or the limit is not in (0, 1].
    """
    return pixel_metrics(ArrayImages(maps, masks), fpr_limit=fpr_limit)["AUPRO"]
