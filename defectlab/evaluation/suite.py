"""Computation of all metrics of a run from raw scores, maps and masks."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.evaluation.metrics import Floats, Metric, aupr, auroc, f1_at, f1_max, fpr_at_tpr, rates_at, sort_scores
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, ImageSubset, PixelImages
from defectlab.evaluation.pixel.metrics import pixel_metrics, undefined_metrics
from defectlab_runtime.errors import InputError


def evaluate(
    image_scores: ArrayLike,
    image_labels: ArrayLike,
    maps: Floats | None = None,
    masks: NDArray[np.bool_] | NDArray[np.uint8] | None = None,
    *,
    image_threshold: float | None,
    pixel_threshold: float | None,
) -> dict[str, Metric]:
    """Compute a run's metrics from raw scores (n,), labels (n,), maps (n, H, W) and masks (n, H, W) or packed.

    At image and at pixel level: AUROC, AUPR, F1Max, FPR_at_95TPR, which need no threshold; F1Score, TPR, TNR, accuracy,
    precision, recall at the given one; for pixels also AUPRO up to a false-positive rate of 0.3. Images labelled -1
    (unknown) are left out, with their maps.

    Raises:
        InputError: If the shapes do not fit one another.
    """
    labels = np.asarray(image_labels)
    images, lack = None, "there are no anomaly maps" if maps is None else "there are no masks"
    if maps is not None and masks is not None:
        images = ArrayImages(maps, masks)
        if len(maps) != len(labels):
            raise InputError(f"There must be a label for each map, got {len(labels)} labels and {len(maps)} maps.")
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
    """Compute the metrics of `evaluate` with maps and masks of any sizes, from memory or disk.

    Without maps and masks (None), `lack` is the reason that pixel metrics have no value.
    """
    labels = np.asarray(image_labels)
    scores = sort_scores(image_scores, labels)
    image = {
        "AUROC": auroc(scores),
        "F1Score": f1_at(scores, image_threshold),
        "F1Max": f1_max(scores),
        "AUPR": aupr(scores),
        "FPR_at_95TPR": fpr_at_tpr(scores),
        **rates_at(scores, image_threshold),
    }
    if images is None:
        pixel = undefined_metrics(lack)
    else:
        pixel = pixel_metrics(ImageSubset(images, np.flatnonzero(labels >= 0).tolist()), threshold=pixel_threshold)
    found = {f"image_{name}": metric for name, metric in image.items()}
    found |= {f"pixel_{name}": metric for name, metric in pixel.items()}
    return {name: found[name] for name in BARE_METRICS} | found
