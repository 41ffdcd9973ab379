"""A coreset that goes on from centres that are there, against a search of all subsets."""

import itertools

import numpy as np
import pytest
import torch

from defectlab.kernels.coreset.continued import continue_greedy
from defectlab.kernels.coreset.greedy import k_center_greedy


def points(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def distances(rows: torch.Tensor, centres: torch.Tensor) -> np.ndarray:
    return np.linalg.norm(rows.numpy()[:, None] - centres.numpy()[None], axis=2)


def test_each_pick_is_the_farthest_and_the_radius_is_that_of_the_rest():
    rows, centres = points(30, 0), points(5, 1)
    picks, radius = continue_greedy(rows, centres, 6)
    known = centres
    for pick in picks.tolist():
        nearest = distances(rows, known).min(1)
        assert nearest[pick] == pytest.approx(nearest.max())
        known = torch.cat([known, rows[pick : pick + 1]])
    assert radius == pytest.approx(distances(rows, known).min(1).max(), rel=1e-5)


def test_it_goes_on_as_the_coreset_of_the_same_rows_does():
    rows = points(40, 2)
    whole = k_center_greedy(rows, 12, first=3)
    picks, _ = continue_greedy(rows, rows[whole[:5]], 7)
    assert picks.tolist() == whole[5:].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_radius_is_at_most_twice_the_best(seed: int):
    rows, centres = points(9, seed), points(2, seed + 100)
    _, radius = continue_greedy(rows, centres, 3)
    between = distances(rows, rows)
    best = min(between[:, list(chosen)].min(1).max() for chosen in itertools.combinations(range(9), 3))
    assert radius <= 2 * best + 1e-6


def test_equal_rows_are_picked_once_each():
    picks, radius = continue_greedy(torch.ones(4, 3), torch.zeros(1, 3), 4)
    assert sorted(picks.tolist()) == [0, 1, 2, 3]
    assert radius == 0
