"""Blocked Cholesky factors and products against torch's own."""

import pytest
import torch

from defectlab.kernels.linalg import batched_cholesky, gram


@pytest.mark.parametrize("size", [1, 5, 34, 35, 100])
def test_factors_and_products_are_torchs(size: int) -> None:
    rows = torch.randn(3, 40, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    product = gram(rows)
    torch.testing.assert_close(product, rows.mT @ rows)
    product.diagonal(dim1=1, dim2=2).add_(0.1)
    factor, failed = batched_cholesky(product)
    torch.testing.assert_close(factor, torch.linalg.cholesky(product))
    assert not failed.any()


def test_which_matrix_is_not_positive_definite_is_told() -> None:
    matrices = torch.eye(60).repeat(3, 1, 1)
    matrices[1, 50, 50] = -1
    assert batched_cholesky(matrices)[1].tolist() == [False, True, False]
