"""Principal subspaces from sums, against numpy's SVD of the centred patches."""

import numpy as np
import pytest
import torch

from defectlab.kernels.subspace import PatchSums, prefix_residuals, residuals, subspace_size
from defectlab_runtime.errors import InputError


def patches(count: int = 200, channels: int = 12, shift: float = 0.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    scales = torch.logspace(0, -3, channels)
    turned = torch.linalg.qr(torch.randn(channels, channels, generator=draw)).Q
    return (torch.randn(count, channels, generator=draw) * scales) @ turned + shift


def of_batches(rows: torch.Tensor, *sizes: int) -> PatchSums:
    first, *rest = (PatchSums.of(part) for part in rows.split(list(sizes)))
    for more in rest:
        first = first + more
    return first


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_sums_of_batches_are_those_of_all_patches(shift: float):
    rows = patches(shift=shift)
    exact = rows.double().numpy()
    sums = of_batches(rows, 50, 1, 149)
    assert sums.count == 200
    np.testing.assert_allclose(sums.mean, exact.mean(0), rtol=1e-13)
    centred = exact - exact.mean(0)
    np.testing.assert_allclose(sums.scatter, centred.T @ centred, rtol=1e-9, atol=1e-12)
    shuffled = of_batches(rows.flip(0), 149, 51)
    assert torch.allclose(shuffled.scatter, sums.scatter, rtol=1e-12, atol=1e-12)


def test_axes_and_residuals_are_those_of_an_svd():
    rows, queries = patches(), patches(40).flip(1)
    exact = rows.double().numpy()
    _, values, vectors = np.linalg.svd(exact - exact.mean(0))
    variances, axes = PatchSums.of(rows).principal_axes()
    np.testing.assert_allclose(variances, values**2 / 199, rtol=1e-9)
    for size in (0, 3, 11):
        centred = queries.double().numpy() - exact.mean(0)
        expected = ((centred - centred @ vectors[:size].T @ vectors[:size]) ** 2).sum(1)
        mean = torch.from_numpy(exact.mean(0))
        assert residuals(queries.double(), mean, axes[:, size:]).numpy() == pytest.approx(expected, rel=1e-9)
        flipped = axes * torch.tensor([1.0, -1.0]).repeat(6)  # an axis has no sign
        found = prefix_residuals(queries.double(), mean, flipped, [1, size])
        assert found[1].numpy() == pytest.approx(expected, rel=1e-9)


def test_the_size_is_the_fewest_axes_that_hold_the_share():
    variances = torch.tensor([5.0, 3.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    sizes = [subspace_size(variances, share) for share in (0.01, 0.5, 0.50001, 0.8, 0.9, 1.0)]
    assert sizes == [1, 1, 2, 2, 4, 4]  # the third and fourth are equal: both or none
    assert [subspace_size(variances, 0.99, size) for size in (1, 2, 3, 4, 5)] == [1, 2, 4, 4, 4]
    assert subspace_size(torch.zeros(4), 0.99) == 0


def test_fewer_patches_than_channels_span_no_more_than_themselves():
    rows = patches(4)
    variances, axes = PatchSums.of(rows).principal_axes()
    assert subspace_size(variances, 1.0) == subspace_size(variances, 0.5, 9) == 3
    mean = rows.double().mean(0)
    assert residuals(rows.double(), mean, axes[:, 3:]).max() < 1e-20
    alike = PatchSums.of(rows[:1].repeat(5, 1))
    assert subspace_size(alike.principal_axes()[0], 0.99) == 0


def test_patches_that_cannot_be_summed_are_refused():
    rows = patches()
    rows[7, 2] = torch.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        PatchSums.of(rows)
    with pytest.raises(InputError, match="no patches"):
        PatchSums.of(rows[:0])
    with pytest.raises(InputError, match="5 features cannot join those of 12"):
        PatchSums.of(patches()) + PatchSums.of(patches(channels=5))
