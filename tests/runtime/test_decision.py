"""Decisions at thresholds with every digit."""

import math

import numpy as np
import pytest

from defectlab_runtime.decision import decision, round_down


@pytest.mark.parametrize("threshold", [0.1, 1.0, -3.3, 1e-300, 0.0])
def test_a_score_at_the_threshold_is_good_and_the_next_float_is_not(threshold: float):
    assert decision(threshold, threshold) == 0
    assert decision(math.nextafter(threshold, math.inf), threshold) == 1


def test_what_cannot_be_compared_is_undecided_and_never_good():
    assert {decision(1.0, None), decision(1.0, math.nan), decision(math.nan, 1.0)} == {-1}


def test_float32_compares_with_the_rounded_threshold_as_with_the_threshold():
    thresholds = np.random.default_rng(0).normal(size=500) * 10.0 ** np.arange(-250, 250)
    for threshold in thresholds.tolist():
        with np.errstate(over="ignore"):
            near = np.float32(threshold)
        for score in (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))):
            assert bool(score > round_down(threshold)) == (float(score) > threshold)
