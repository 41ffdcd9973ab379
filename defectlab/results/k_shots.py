"""Curves of metrics against the number of good images, read from a run's record (`data.k_shots`)."""

import numpy as np

from defectlab.evaluation.k_shot_curve import KShotCurve, read_curve
from defectlab.results.run.arrays import mapped
from defectlab.results.run.run import Run
from defectlab.utils.files import replacing

SCORES = "k_shots.npy"
METRICS = ("image_AUROC", "image_F1Max", "image_AUPR", "pixel_AUROC", "pixel_AUPRO", "pixel_F1Max")
CURVES = ("image_AUROC", "pixel_AUROC")


def k_shot_curves(run: Run) -> dict[str, KShotCurve]:
    """Return the curve of each metric of `CURVES`; those without a value have no points, and a run without fits none.

    Masks that the dataset does not have are no curve.
    """
    record = run.record.k_shots
    if record is None or not record.fits:
        return {}
    curves = {metric: read_curve(record.values(metric), record.images) for metric in CURVES}
    return {metric: curve for metric, curve in curves.items() if curve.points or metric == CURVES[0]}


def read_fit_scores(run: Run) -> np.ndarray | None:
    """Return the raw scores (fits, n) float64 of the test images: rows as in the record, columns as in scores.csv.

    Raises:
        InputError: The file is damaged.
    """
    return mapped(run.folder / SCORES, 2, np.float64)


def write_fit_scores(run: Run, scores: np.ndarray) -> None:
    """Write the raw scores (fits, n) of a run's fits, atomically."""
    with replacing(run.folder / SCORES) as partial, partial.open("wb") as file:
        np.save(file, scores)
