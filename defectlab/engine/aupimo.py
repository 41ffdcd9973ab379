"""The metric AUPIMO (Bertoldo et al., 2024), as anomalib computes it; slow and memory-intensive, so optional."""

import logging
from typing import Any

import numpy as np
import torch
from anomalib.metrics.pimo.pimo import _AUPIMO

from defectlab.evaluation.metrics import Metric
from defectlab.evaluation.pixel.maps_and_masks import PixelImages

logger = logging.getLogger(__name__)

THRESHOLDS = 300_000  # anomalib's own
MEMORY = 8 << 30  # bytes
_BYTES = 4 * 8  # of the four counts that anomalib keeps for each image at each threshold


def aupimo(images: PixelImages, thresholds: int = THRESHOLDS) -> Metric:
    """Return AUPIMO, in [0, 1]: mean over anomalous images of the area under recall against the rate on good images.

    Anomalib's numbers: false-positive rates from 1e-5 to 1e-4 on a logarithmic scale, averaged over good images. Where
    it cannot compute it, the reason is its own.
    """
    sizes = set(images.sizes)
    needed = len(images.sizes) * thresholds * _BYTES
    if len(sizes) != 1:
        return Metric(None, "AUPIMO needs maps of one size: use pixel_size input or [height, width]")
    if needed > MEMORY:
        return Metric(
            None, f"anomalib's AUPIMO of {len(images.sizes)} images would take about {needed / 2**30:.0f} GiB of memory"
        )
    places = range(len(images.sizes))
    maps = torch.from_numpy(np.stack([images.map(index) for index in places]))
    masks = torch.from_numpy(np.stack([images.mask(index) for index in places]))
    if not bool(torch.isfinite(maps).all()):
        return Metric(None, "AUPIMO needs finite maps, and some pixels are infinite or NaN")
    metric = _AUPIMO(num_thresholds=thresholds)
    metric.update(maps, masks)
    try:
        average: Any = metric.compute()  # declared as curves and areas; with return_average it is one number
        return Metric(float(average))
    except (ValueError, RuntimeError) as error:  # what its checks raise: too few pixels, one class, constant maps
        return Metric(None, f"anomalib: {error}")
