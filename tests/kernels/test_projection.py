"""Sparse random projection against anomalib's: size, values, density, and no use of the global generator."""

import pytest
import torch

from defectlab.kernels.projection import projected_size, sparse_projection
from defectlab_runtime.errors import OptionError


def draw(n_samples: int, n_features: int, seed: int = 0) -> torch.Tensor:
    return sparse_projection(n_samples, n_features, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n_samples", "n_features"), [(300, 64), (1024, 7), (5000, 384), (50, 1)])
def test_size_and_values_are_those_of_anomalib(n_samples: int, n_features: int) -> None:
    from anomalib.models.components import SparseRandomProjection

    with torch.random.fork_rng():
        plain = SparseRandomProjection(eps=0.9).fit(torch.empty(n_samples, n_features)).sparse_random_matrix
    ours = draw(n_samples, n_features)
    assert ours.shape == plain.shape
    assert ours.dtype == torch.float32
    largest = plain.abs().max()
    torch.testing.assert_close(ours.abs().max(), largest.float(), rtol=1e-6, atol=0)
    assert set((ours / largest).round(decimals=5).unique().tolist()) <= {-1.0, 0.0, 1.0}


def test_density_signs_and_distances_are_as_expected() -> None:
    matrix = draw(100_000, 400)
    share = (matrix != 0).float().mean().item()
    assert share == pytest.approx(1 / 20, rel=0.03)
    assert (matrix > 0).sum().item() / (matrix != 0).sum().item() == pytest.approx(0.5, abs=0.02)
    rows = torch.randn(200, 400, generator=torch.Generator().manual_seed(3))
    ratio = (rows @ matrix.T).norm(dim=1) / rows.norm(dim=1)
    assert ratio.mean().item() == pytest.approx(1, abs=0.03)


def test_only_the_given_generator_is_used() -> None:
    state = torch.random.get_rng_state()
    assert torch.equal(draw(500, 30, seed=1), draw(500, 30, seed=1))
    assert not torch.equal(draw(500, 30, seed=1), draw(500, 30, seed=2))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("n", "eps"), [(0, 0.9), (10, 0.0), (10, 1.0)])
def test_impossible_sizes_are_refused(n: int, eps: float) -> None:
    with pytest.raises(OptionError):
        projected_size(n, eps)
