"""Mahalanobis distance of each patch to the Gaussian of its position, from any form of the covariance."""

from collections.abc import Sequence

import torch

from defectlab.kernels.gaussian.fit import REGULARISATION, STABILISATION, Gaussian, chunk_size
from defectlab.kernels.linalg import over_chunks
from defectlab_runtime.errors import InputError

SCORE_CHUNK = 128  # positions


@torch.no_grad()
def distance(embedding: torch.Tensor, gaussian: Gaussian, *, memory_budget: int | None = None) -> torch.Tensor:
    """Return the Mahalanobis distance (B, 1, h, w) of each patch of (B, C, h, w) to its position's Gaussian.

    Positions are worked in chunks under `memory_budget`, so that no second copy of the embedding is made.

    Raises:
        InputError: If the embedding has another size than the statistics, e.g. images of another size.
    """
    batch, channels, height, width = embedding.shape
    _check_size(embedding, gaussian.mean)
    vectors = embedding.reshape(batch, channels, height * width)  # (B, C, h, w) -> (B, C, P)
    squared = embedding.new_empty((height * width, batch))
    extra = 0 if gaussian.rows is None else gaussian.rows.shape[1]

    def work(part: slice) -> None:
        delta = (vectors[:, :, part] - gaussian.mean[:, part]).permute(2, 0, 1).contiguous()  # (B, C, p) -> (p, B, C)
        if gaussian.inverse is not None:
            squared[part] = torch.bmm(delta, gaussian.inverse[part]).mul_(delta).sum(2)  # (p, B, C) -> (p, B)
            return
        assert gaussian.factor is not None
        if gaussian.rows is None:
            squared[part] = _solved(gaussian.factor[part], delta).square_().sum(2)
        else:
            squared[part] = _ridge(delta, gaussian.rows[part], gaussian.factor[part])

    chunk = chunk_size(memory_budget, SCORE_CHUNK, 4 * batch * (channels + extra))
    over_chunks(work, height * width, chunk, embedding.device)
    return squared.T.reshape(batch, 1, height, width).clamp(min=0).sqrt()  # (P, B) -> (B, 1, h, w)


@torch.no_grad()
def prefix_distances(
    embedding: torch.Tensor, gaussian: Gaussian, sizes: Sequence[int], *, memory_budget: int | None = None
) -> torch.Tensor:
    """Return Mahalanobis distances from the first c features alone, for every c of `sizes`, by one solve.

    `embedding` (B, C, h, w) with its channels in the order that `gaussian`, from `fit_factor`, was fitted with. With y
    the solution of L y = delta, the squared distance of the first c features is the sum of y's first c squares, since
    the leading block of L is their own factor. Returns (len(sizes), B, 1, h, w).

    Raises:
        InputError: Another form than `factor`, another size than the statistics, or a size outside 1 to C.
    """
    if gaussian.form != "factor" or gaussian.factor is None:
        raise InputError(f"prefix_distances needs a fit by fit_factor, got the form {gaussian.form!r}.")
    batch, channels, height, width = embedding.shape
    _check_size(embedding, gaussian.mean)
    wrong = [size for size in sizes if not 1 <= size <= channels]
    if wrong or not sizes:
        raise InputError(f"prefix_distances: sizes must be 1 to {channels} features, got {list(sizes)}.")
    factor = gaussian.factor
    vectors = embedding.reshape(batch, channels, height * width)  # (B, C, h, w) -> (B, C, P)
    squared = embedding.new_empty((len(sizes), height * width, batch))

    def work(part: slice) -> None:
        delta = (vectors[:, :, part] - gaussian.mean[:, part]).permute(2, 0, 1).contiguous()  # (B, C, p) -> (p, B, C)
        squares = _solved(factor[part], delta).square_()
        for place, size in enumerate(sizes):
            squared[place, part] = squares[:, :, :size].sum(2)

    over_chunks(work, height * width, chunk_size(memory_budget, SCORE_CHUNK, 4 * batch * channels), embedding.device)
    return squared.transpose(1, 2).reshape(len(sizes), batch, 1, height, width).sqrt()  # (S, P, B) -> (S, B, 1, h, w)


def _solved(factor: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Return L^-1 delta for each row of `delta` (p, B, C), with L the lower factor (p, C, C)."""
    return torch.linalg.solve_triangular(factor.mT, delta, upper=True, left=False)


def _ridge(delta: torch.Tensor, rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return squared distances (p, B) of (p, B, C) from centred rows A (p, N, C) and the factor (p, N, N).

    Woodbury's difference l d^2 = |delta|^2 - |L^-1 A delta|^2 cancels. It equals the least value of
    |delta - A.T a|^2 + l(N-1) |a|^2, a sum of squares in which an error of `a` counts in second order only.
    """
    ridge = REGULARISATION + STABILISATION
    half = _solved(factor, torch.bmm(delta, rows.mT))  # (p, B, N)
    weights = torch.linalg.solve_triangular(factor, half, upper=False, left=False)  # (p, B, N) @ L^-1
    rest = torch.baddbmm(delta, weights, rows, alpha=-1)  # (p, B, C)
    return rest.square_().sum(2).add_(weights.square_().sum(2), alpha=ridge * (rows.shape[1] - 1)).div_(ridge)


def _check_size(embedding: torch.Tensor, mean: torch.Tensor) -> None:
    _, channels, height, width = embedding.shape
    if tuple(mean.shape) != (channels, height * width):
        raise InputError(
            f"The embedding has {channels} features at {height} x {width} positions, the fitted statistics have "
            f"{mean.shape[0]} features at {mean.shape[-1]} positions. "
            "Score images with the size, layers and features that the model was fitted with."
        )
