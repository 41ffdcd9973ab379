"""Counting below many scores: what sorting gives, whatever the bins and threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import defectlab.evaluation.pixel.counting as counting
from defectlab.evaluation.pixel.counting import count_scores
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages
from defectlab.evaluation.pixel.metrics import pixel_metrics

SCORES = st.one_of(
    st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1e-38, 1.0, np.nextafter(np.float32(1), np.float32(2)), 3e38, np.inf]),
    st.floats(-4, 4, width=32),
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bins and steps, so that a handful of scores goes through all of it."""
    for name, value in (("MAX_SORTED", 3), ("BINS", 16), ("CHUNK_SIZE", 5)):
        monkeypatch.setattr(counting, name, value)


NEAR = st.integers(-40, 40).map(lambda step: float(np.float32(0) + step * np.float32(1e-45)))  # neighbours around zero


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["_Binned", "_ByKey"])
@given(data=st.data(), threads=st.sampled_from("138"))
@settings(max_examples=200, deadline=None)
def test_counts_are_those_of_the_sorted_scores(kind: str, data: st.DataObject, threads: str):
    one = SCORES if kind == "_Binned" else st.one_of(SCORES, NEAR)
    scores = data.draw(st.lists(one, min_size=1, max_size=60))
    others = data.draw(st.lists(SCORES if kind == "_Binned" else NEAR, min_size=1, max_size=30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", threads)
        values, distinct = np.array(scores, np.float32), np.unique(np.array(others, np.float32) + np.float32(0))
        ordered, parts = np.sort(values), np.array_split(values, 7)
        below, upto = count_scores(parts, lambda part: part, distinct, len(values) if kind == "_Binned" else 1000)
        assert values.tobytes() == np.array(scores, np.float32).tobytes()  # not touched
    assert below.tolist() == np.searchsorted(ordered, distinct, "left").tolist()
    assert upto.tolist() == np.searchsorted(ordered, distinct, "right").tolist()


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0001), (-1.0, -0.9999), (-1e-42, 1e-42)])
def test_many_scores_in_a_narrow_range_have_a_place_each(low: float, high: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(counting, "MAX_SORTED", 3)
    draw = np.random.default_rng(0)
    values = draw.uniform(2 * low - high, 2 * high - low, 5000).astype(np.float32)
    distinct = np.unique(draw.uniform(low, high, 300).astype(np.float32) + np.float32(0))
    assert isinstance(counting._counter(distinct, len(values)), counting._ByKey)
    below, upto = count_scores([values[:3000], values[3000:]], lambda part: part, distinct, len(values))
    assert below.tolist() == np.searchsorted(np.sort(values), distinct, "left").tolist()
    assert upto.tolist() == np.searchsorted(np.sort(values), distinct, "right").tolist()
    assert (upto > below).sum() > 10


@pytest.mark.parametrize("threads", ["1", "3", "", "0", "many"])
def test_threads_and_bins_change_no_digit_of_the_metrics(threads: str, monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(0)
    masks = draw.random((4, 30, 31)) < 0.1
    images = ArrayImages((draw.normal(size=masks.shape) + masks).astype(np.float32).round(2), masks)
    expected = pixel_metrics(images, threshold=0.5)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(counting, "MAX_SORTED", 100)
    monkeypatch.setattr(counting, "BINS", 64)
    assert 1 <= counting.threads() <= counting.MAX_THREADS
    assert pixel_metrics(images, threshold=0.5) == expected
    assert pixel_metrics(images, threshold=0.5, memory=50_000) == expected
