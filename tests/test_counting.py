"""Counting below many scores: what sorting gives, whatever the bins and threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import defectlab.evaluation.counting as counting
from defectlab.evaluation.counting import add_counts
from defectlab.evaluation.pixels import pixel_metrics
from defectlab.evaluation.sources import ArrayImages

SCORES = st.one_of(
    st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1e-38, 1.0, np.nextafter(np.float32(1), np.float32(2)), 3e38, np.inf]),
    st.floats(-4, 4, width=32),
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bins and steps, so that a handful of scores goes through all of it."""
    for name, value in (("FEW", 3), ("BINS", 16), ("AT_ONCE", 5)):
        monkeypatch.setattr(counting, name, value)


@pytest.mark.usefixtures("small")
@given(st.lists(SCORES, min_size=1, max_size=60), st.lists(SCORES, min_size=1, max_size=30), st.sampled_from("138"))
@settings(max_examples=300, deadline=None)
def test_counts_are_those_of_the_sorted_scores(scores: list[float], others: list[float], told: str):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", told)
        values, distinct = np.array(scores, np.float32), np.unique(np.array(others, np.float32) + np.float32(0))
        ordered = np.sort(values)
        below, upto = np.full(distinct.size, 7), np.full(distinct.size, 9)
        add_counts(values.copy(), distinct, below, upto)
    assert (below - 7).tolist() == np.searchsorted(ordered, distinct, "left").tolist()
    assert (upto - 9).tolist() == np.searchsorted(ordered, distinct, "right").tolist()


@pytest.mark.parametrize("told", ["1", "3", "", "0", "many"])
def test_threads_and_bins_change_no_digit_of_the_metrics(told: str, monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(0)
    masks = draw.random((4, 30, 31)) < 0.1
    images = ArrayImages((draw.normal(size=masks.shape) + masks).astype(np.float32).round(2), masks)
    expected = pixel_metrics(images, threshold=0.5)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(counting, "FEW", 100)
    monkeypatch.setattr(counting, "BINS", 64)
    assert 1 <= counting.threads() <= counting.MOST_THREADS
    assert pixel_metrics(images, threshold=0.5) == expected
    assert pixel_metrics(images, threshold=0.5, memory=50_000) == expected
