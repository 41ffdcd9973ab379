"""Two models on the same images, by any metric: the paired bootstrap (Efron and Tibshirani, 1993)."""

import math

import numpy as np
from numpy.typing import NDArray

from defectlab.evaluation.intervals import CONFIDENCE, PairedTest, deviations


def paired_bootstrap(
    difference: float,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    confidence: float = CONFIDENCE,
) -> PairedTest:
    """Test whether two models differ in a metric, from its values on the same draws of the images they share.

    Normal, with the spread of the differences: what is common to both models, such as a hard image drawn twice, cancels
    out. Draws on which either metric has no value (NaN) are left out. Where all draws give one difference that is not
    0, p is the smallest that so many draws can tell.

    Args:
        difference: The metric of the first minus that of the second, on the images as they are.
        first: (b,) the first model's metric on each draw.
        second: (b,) the second's, on the same draws.
        confidence: Of the interval.
    """
    drawn = first - second
    drawn = drawn[~np.isnan(drawn)]
    deviation = float(drawn.std(ddof=1)) if drawn.size > 1 else 0.0
    if deviation < 1e-12:
        return PairedTest(difference, None, None, 1.0 if abs(difference) < 1e-12 else 1 / (drawn.size + 1))
    half = deviations(confidence) * deviation
    p = math.erfc(abs(difference) / (deviation * math.sqrt(2)))
    return PairedTest(difference, difference - half, difference + half, p)
