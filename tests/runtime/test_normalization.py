"""Views of scores: none flips a decision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectlab_runtime.normalization import (
    VIEW_THRESHOLDS,
    normalize_min_max,
    normalize_percent,
    normalize_scores,
    percent_window,
)

FINITE = st.floats(-1e6, 1e6)


@given(st.lists(FINITE, min_size=1, max_size=20), FINITE, st.integers(0, 4), FINITE, FINITE)
@settings(max_examples=300, deadline=None)
def test_no_view_flips_a_decision(scores: list[float], threshold: float, digits: int, one: float, other: float):
    raw = np.array([*scores, threshold, np.nextafter(threshold, np.inf)])
    decisions = raw > threshold
    for view in (normalize_percent(raw, threshold), normalize_percent(raw, threshold, digits)):
        assert ((view > 100) == decisions).all()
    if one != other:
        assert ((normalize_min_max(raw, threshold, min(one, other), max(one, other)) > 0.5) == decisions).all()
    order = np.argsort(raw, kind="stable")
    assert (np.diff(normalize_percent(raw, threshold, digits)[order]) >= 0).all()


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    FINITE,
    st.sampled_from([None, 1, 2, 4]),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from(["min_max", "percent", "raw"]),
)
@settings(max_examples=300, deadline=None)
def test_views_by_name_keep_type_decision_and_nan(scores, threshold, digits, dtype, view):
    near = dtype(threshold)
    around = [near, np.nextafter(near, dtype(np.inf)), np.nextafter(near, dtype(-np.inf)), np.nan]
    raw = np.array([*scores, *around], dtype)
    found = normalize_scores(view, raw, threshold, threshold - 2.0, threshold + 3.0, digits)
    assert found.dtype == dtype
    middle = threshold if VIEW_THRESHOLDS[view] is None else VIEW_THRESHOLDS[view]
    assert ((found.astype(float) > middle) == (raw.astype(float) > threshold)).all()
    assert np.isnan(found[-1])


@pytest.mark.parametrize("threshold", [3.7, 1e-6, 0.0, -2.5])
def test_the_window_of_the_percent_view_goes_from_50_to_150(threshold: float):
    low, high = percent_window(threshold)
    assert normalize_percent([low, threshold, high], threshold).tolist() == pytest.approx([50, 100, 150])


def test_the_views_formulas():
    assert normalize_percent(np.array([4.0, 10.0]), 2.0).tolist() == [200, 500]
    assert normalize_percent(np.array([0.5, 99.0]), 0.0).tolist() == [150, 1000]
    assert normalize_percent(np.array([-3.0, -2.0, -1.0]), -2.0).tolist() == [50, 100, 150]
    assert normalize_min_max([0.0, 5.0, 10.0, 99.0], 4.0, 0.0, 10.0).tolist() == pytest.approx([0.1, 0.6, 1.0, 1.0])
