"""The approximate greedy choice against the plain loop."""

import numpy as np
import pytest
import torch

from defectlab.kernels.coreset.approximate import approximate_greedy
from defectlab_runtime.errors import OptionError


def test_approximate_greedy_is_the_plain_loop():
    rows = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    picks = approximate_greedy(rows, 20, generator=torch.Generator().manual_seed(7))
    points = rows.double().numpy()
    starts = torch.randperm(60, generator=torch.Generator().manual_seed(7))[:10].numpy()
    bound = np.linalg.norm(points[:, None] - points[starts][None], axis=2).mean(axis=1)
    expected = []
    for _ in range(20):
        expected.append(int(bound.argmax()))
        bound = np.minimum(bound, np.linalg.norm(points - points[expected[-1]], axis=1))
    assert picks.tolist() == expected
    twice = approximate_greedy(rows[:3].repeat(4, 1), 12, generator=torch.Generator().manual_seed(7))
    assert sorted(twice.tolist()) == list(range(12))  # copies are picked once each
    with pytest.raises(OptionError, match="1 to 60"):
        approximate_greedy(rows, 61, generator=torch.Generator())
