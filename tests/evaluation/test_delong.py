"""Placements and their variance against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectlab.evaluation.delong import placement_variance, placements


def test_placements_are_pairs_counted():
    random = np.random.default_rng(0)
    bad, good = random.integers(0, 6, 7), random.integers(0, 6, 5)
    pairs = (bad[:, None] > good[None]) + 0.5 * (bad[:, None] == good[None])
    top, bottom = placements(bad, good)
    assert top.tolist() == pytest.approx(pairs.mean(axis=1).tolist())
    assert bottom.tolist() == pytest.approx(pairs.mean(axis=0).tolist())


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_variance_is_obuchowskis_formula(bad: int, good: int, seed: int):
    random = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [3 * bad, 3 * good])
    scores = random.integers(0, 6, labels.size).astype(float)
    groups = random.integers(0, 8, labels.size)  # some parts have images of both labels
    parts = sorted(set(groups))
    with_bad = {g for g in parts if (labels[groups == g] == 1).any()}
    with_good = {g for g in parts if (labels[groups == g] == 0).any()}
    x, y = scores[labels == 1], scores[labels == 0]
    found = placement_variance(*placements(x, y), (groups[labels == 1], groups[labels == 0]))
    if min(len(with_bad), len(with_good)) < 2:
        assert np.isnan(found)
        return
    pairs = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    area, m, n = pairs.mean(), x.size, y.size
    v10 = {g: sum(pairs[i].mean() - area for i in np.flatnonzero(groups[labels == 1] == g)) for g in parts}
    v01 = {g: sum(pairs[:, j].mean() - area for j in np.flatnonzero(groups[labels == 0] == g)) for g in parts}
    s10 = len(with_bad) / ((len(with_bad) - 1) * m) * sum(v**2 for v in v10.values())
    s01 = len(with_good) / ((len(with_good) - 1) * n) * sum(v**2 for v in v01.values())
    s11 = len(parts) / (len(parts) - 1) * sum(v10[g] * v01[g] for g in parts)
    assert found == pytest.approx(max(s10 / m + s01 / n + 2 * s11 / (m * n), 0), abs=1e-12)
