"""The midpoint of two scores, which lies between them."""

import math

import numpy as np
import pytest

from defectlab.evaluation.metrics import f1_at, sort_scores
from defectlab.evaluation.threshold import midpoint
from defectlab.evaluation.threshold_rules import f1_threshold


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.0, 2.0), (-np.inf, np.inf), (3.0, np.inf), (-np.inf, -3.0), (1.6e308, 1.7e308), (-5e-324, 5e-324)],
)
def test_midpoint_lies_strictly_between(low: float, high: float) -> None:
    assert low < midpoint(low, high) < high


def test_midpoint_of_neighbours_still_parts_them() -> None:
    high = math.nextafter(1.0, 2.0)
    assert midpoint(1.0, high) == 1.0
    scores = np.array([1.0, high])
    assert f1_at(sort_scores(scores, [0, 1]), f1_threshold(sort_scores(scores, [0, 1])).value).value == 1.0
