import numpy as np
import pytest
from scipy.stats import rankdata

from defectlab.evaluation.ranks import average_ranks


@pytest.mark.parametrize("shape", [(1,), (40,), (3, 17), (2, 3, 9), (0,), (2, 0)])
@pytest.mark.parametrize("different", [1, 5, 10**6])
def test_ranks_are_those_of_scipy_to_the_last_digit(shape: tuple[int, ...], different: int):
    random = np.random.default_rng(len(shape) + different)
    values = random.integers(different, size=shape) / 7 - 1
    expected = rankdata(values, axis=-1) if values.size else np.empty(shape)
    assert np.array_equal(average_ranks(values), expected)
    assert np.array_equal(average_ranks(values.astype(np.float32)), expected)


def test_infinities_are_ranked_and_a_nan_leaves_its_line_without_ranks():
    values = np.array([[np.inf, 1.0, -np.inf, np.inf], [0.0, np.nan, 1.0, 2.0], [-0.0, 0.0, 1.0, 2.0]])
    assert np.array_equal(average_ranks(values), rankdata(values, axis=1), equal_nan=True)
    assert np.array_equal(average_ranks(values[0].tolist()), [3.5, 2.0, 1.0, 3.5])
