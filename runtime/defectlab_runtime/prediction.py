"""`Prediction`, the result for one image, of a run and of an exported file alike."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """Result for one image. `score` and `anomaly_map` are raw: higher is more anomalous, in the model's own unit.

    `label`: 1 anomalous, 0 good, -1 where the run has no image threshold or the score is NaN. `anomaly_map` (H, W)
    float32 and `mask` (H, W) bool have the image's own size; a centre crop leaves NaN and False outside, a model
    without maps everywhere. `mask` is None without a map threshold.

    `category` is whose thresholds decided, for a model that serves several categories.

    In another view than raw, `score` and `anomaly_map` lie above the view's own threshold, 0.5 or 100, exactly where
    the raw ones are above the run's; `label` and `mask` are the same in every view.
    """

    image_path: str | None
    score: float
    label: int
    anomaly_map: np.ndarray
    mask: np.ndarray | None
    category: str | None = None
