"""Area under the per-region overlap curve (Bergmann et al., 2021, "The MVTec Anomaly Detection Dataset"), exact.

At each threshold: the mean, over all connected regions of ground truth in all images, of the share of the region that
is flagged, against the share of good pixels flagged. The area up to a false-positive rate, divided by that rate.
"""

import numpy as np
from numpy.typing import NDArray

from defectlab.evaluation.metrics import Floats, Metric
from defectlab.evaluation.pixels import FPR_LIMIT, pixel_metrics
from defectlab.evaluation.sources import ArrayImages


def aupro(maps: Floats, masks: NDArray[np.bool_], fpr_limit: float = FPR_LIMIT) -> Metric:
    """Return AUPRO, in [0, 1], of maps (n, H, W) float32 and masks (n, H, W).

    Raises:
        InputError: The shapes differ, or the limit is not in (0, 1].
    """
    return pixel_metrics(ArrayImages(maps, masks), fpr_limit=fpr_limit)["AUPRO"]
