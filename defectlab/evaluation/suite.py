"""All metrics of a run at once, from raw scores, maps and masks."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab.evaluation.metrics import (
    Curve,
    Floats,
    Metric,
    curve_aupr,
    curve_auroc,
    curve_f1_at,
    curve_f1_max,
    curve_fpr_at_tpr,
    curve_rates_at,
    sorted_curve,
)
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, ImageSubset, PixelImages
from defectlab.evaluation.pixel.metrics import no_metrics, pixel_metrics
from defectlab.utils.errors import InputError


def evaluate(
    image_scores: ArrayLike,
    image_labels: ArrayLike,
    maps: Floats | None = None,
    masks: NDArray[np.bool_] | None = None,
    *,
    image_threshold: float | None,
    pixel_threshold: float | None,
) -> dict[str, Metric]:
    """Compute a run's metrics from raw scores (n,), labels (n,), maps (n, H, W) and masks (n, H, W).

    At image and at pixel level: AUROC, AUPR, F1Max, FPR_at_95TPR, which need no threshold; F1Score, TPR, TNR, accuracy,
    precision, recall at the given one; for pixels also AUPRO up to a false-positive rate of 0.3. Images labelled -1
    (unknown) are left out, with their maps.

    Raises:
        InputError: If the shapes do not fit one another.
    """
    labels = np.asarray(image_labels)
    images, lack = None, "there are no anomaly maps" if maps is None else "there are no masks"
    if maps is not None and masks is not None:
        _check_shapes(maps, masks, labels)
        images = ArrayImages(maps, masks)
    return evaluate_images(
        image_scores, labels, images, lack, image_threshold=image_threshold, pixel_threshold=pixel_threshold
    )


def evaluate_images(
    image_scores: ArrayLike,
    image_labels: ArrayLike,
    images: PixelImages | None,
    lack: str | None = None,
    *,
    image_threshold: float | None,
    pixel_threshold: float | None,
) -> dict[str, Metric]:
    """As `evaluate`, with maps and masks of any sizes, from memory or disk; without them, `lack` says why."""
    labels = np.asarray(image_labels)
    image = _level("image", sorted_curve(image_scores, labels), image_threshold)
    if images is None:
        pixel = no_metrics(lack)
    else:
        known = ImageSubset(images, np.flatnonzero(labels >= 0).tolist())
        pixel = pixel_metrics(known, threshold=pixel_threshold)
    bare = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score")
    found = image | {f"pixel_{name}": metric for name, metric in pixel.items()}
    return {name: found[name] for name in bare} | found


def _level(level: str, curve: Curve, threshold: float | None) -> dict[str, Metric]:
    found = {
        "AUROC": curve_auroc(curve),
        "F1Score": curve_f1_at(curve, threshold),
        "F1Max": curve_f1_max(curve),
        "AUPR": curve_aupr(curve),
        "FPR_at_95TPR": curve_fpr_at_tpr(curve),
        **curve_rates_at(curve, threshold),
    }
    return {f"{level}_{name}": metric for name, metric in found.items()}


def _check_shapes(maps: Floats, masks: NDArray[np.bool_], labels: NDArray[np.integer]) -> None:
    if maps.shape != masks.shape or len(maps) != len(labels):
        raise InputError(
            f"Maps and masks must be (n, H, W) alike with n the number of labels, "
            f"got {maps.shape}, {masks.shape} and {len(labels)} labels."
        )
