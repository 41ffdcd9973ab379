"""CFlow's conditional coupling flow, without the computations of the plain form whose results are not used.

A block of anomalib's decoder (FrEIA's AllInOneBlock) joins the position encoding to one half of the channels, predicts
scale and shift of the other half, scales all channels and permutes them by a matrix product. Here vectors are columns
(C, F), so that halves are views and a permutation is a copy of rows. Training has its gradients written out, without
those of the encoding and of the features; `flow_grid` scores. Results equal the plain form's up to float32 rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

SHRINK = 0.1  # of scale and shift, and of the global scale: constants of FrEIA's block
BETA = 0.5  # of the global scale's softplus
LOG_SQRT_2PI = -math.log(math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class Coupling:
    """The tensors of one block: S channels are read, C - S are changed, P numbers encode the position.

    Attributes:
        w1: (H, S + P), first layer of the subnet; its bias b1 (H,).
        w2: (2 (C - S), H), second layer; its bias b2.
        scale: (C,), before its softplus.
        offset: (C,).
        order: (C,) int64: channel i of the result is channel order[i]; None with `rotation`.
        rotation: (C, C) in place of a permutation.
        clamp: Limit of the log-scales.
    """

    w1: torch.Tensor
    b1: torch.Tensor
    w2: torch.Tensor
    b2: torch.Tensor
    scale: torch.Tensor
    offset: torch.Tensor
    order: torch.Tensor | None
    rotation: torch.Tensor | None
    clamp: float

    @property
    def split(self) -> int:
        """Number of channels that the subnetwork reads."""
        return len(self.offset) - len(self.b2) // 2

    def mix(self, columns: torch.Tensor) -> torch.Tensor:
        """Apply the permutation or the rotation of the block to the channels of (C, F)."""
        if self.order is not None:
            return columns.index_select(0, self.order)
        assert self.rotation is not None
        return self.rotation @ columns

    def unmix(self, columns: torch.Tensor) -> torch.Tensor:
        """Apply the inverse of `mix` to (C, F): its transpose, because `mix` is orthogonal."""
        if self.order is not None:
            return torch.empty_like(columns).index_copy_(0, self.order, columns)
        assert self.rotation is not None
        return self.rotation.T @ columns

    def global_scale(self) -> torch.Tensor:
        """Return the positive factor of each channel (C, 1)."""
        return SHRINK * F.softplus(self.scale, beta=BETA).unsqueeze(1)


def permutation_of(matrix: torch.Tensor) -> torch.Tensor | None:
    """Return the channel order (C,) of a permutation matrix (C, C), or None if the matrix is not a permutation.

    >>> permutation_of(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist()
    [1, 0]
    """
    order = matrix.argmax(1)
    exact = torch.zeros_like(matrix).scatter_(1, order.unsqueeze(1), 1.0)
    return order if torch.equal(matrix, exact) and len(order.unique()) == len(order) else None


def trained_tensors(blocks: Sequence[Coupling]) -> list[torch.Tensor]:
    """Return the tensors that get gradients, in the order of one flat gradient: scales, offsets, then the subnets."""
    subnets = [tensor for block in blocks for tensor in (block.w1, block.b1, block.w2, block.b2)]
    return [*(block.scale for block in blocks), *(block.offset for block in blocks), *subnets]


def flow_log_likelihood(
    fibers: torch.Tensor, encoding: torch.Tensor, blocks: Sequence[Coupling], flat: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the log-likelihood (F,) of fibers (F, C) at encodings (F, P), differentiable in the blocks' tensors.

    Where these are views of one tensor `flat`, in the order of `trained_tensors`, that one gets the gradient.
    """
    tensors = trained_tensors(blocks) if flat is None else [flat]
    result: torch.Tensor = _Flow.apply(fibers.T.contiguous(), encoding.T.contiguous(), list(blocks), *tensors)
    return result


class _Flow(torch.autograd.Function):
    """The whole flow as one node, from columns x (C, F) and encodings c (P, F) to log-likelihoods (F,)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, c: torch.Tensor, blocks: list[Coupling], *tensors: torch.Tensor
    ) -> torch.Tensor:
        # the blocks hold the tensors too; they are arguments so that autograd asks for their gradients
        channels = len(x)
        scales = SHRINK * F.softplus(torch.stack([block.scale for block in blocks]), beta=BETA)  # (K, C)
        log_jacobian = scales.log().sum().expand(x.shape[1]).clone()
        saved = []
        for block, scale in zip(blocks, scales.unsqueeze(2), strict=True):
            split, active = block.split, channels - block.split
            joined = torch.cat([x[:split], c])  # (S + P, F)
            hidden = torch.addmm(block.b1.unsqueeze(1), block.w1, joined).relu_()  # (H, F)
            coefficients = torch.addmm(block.b2.unsqueeze(1), block.w2, hidden, beta=SHRINK, alpha=SHRINK)
            tanh = coefficients[:active].tanh_()
            factor = (tanh * block.clamp).exp_()
            both = torch.empty_like(x)  # (C, F)
            both[:split].copy_(x[:split])
            torch.addcmul(coefficients[active:], x[split:], factor, out=both[split:])
            saved.append((joined, hidden, tanh, factor, x[split:], both, scale))
            log_jacobian.add_(tanh.sum(0), alpha=block.clamp)
            x = block.mix(torch.addcmul(block.offset.unsqueeze(1), both, scale))
        ctx.blocks, ctx.saved, ctx.latent, ctx.shapes = blocks, saved, x, [tensor.shape for tensor in tensors]
        return log_jacobian.sub_(x.square().sum(0), alpha=0.5).add_(channels * LOG_SQRT_2PI)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, blocks = outer[0], ctx.blocks  # (F,)
        gradient = ctx.latent.mul(weight).neg_()  # of the half square of the latent columns
        sizes = [tensor.numel() for tensor in trained_tensors(blocks)]
        flat = gradient.new_empty(sum(sizes))
        found = flat.split(sizes)
        of_scales, of_offsets, of_subnets = found[: len(blocks)], found[len(blocks) :], found[2 * len(blocks) :]
        for number in range(len(blocks) - 1, -1, -1):
            block = blocks[number]
            joined, hidden, tanh, factor, passive, both, scale = ctx.saved[number]
            split = block.split
            of_w1, of_b1, of_w2, of_b2 = of_subnets[4 * number : 4 * number + 4]
            gradient = block.unmix(gradient)  # (C, F)
            torch.sum(gradient, 1, out=of_offsets[number])
            torch.sum(gradient * both, 1, out=of_scales[number])
            gradient.mul_(scale)
            of_shift = gradient[split:]
            scaled = of_shift * factor
            of_log_scale = torch.addcmul(weight, scaled, passive).mul_(block.clamp)
            coefficients = torch.cat([torch.ops.aten.tanh_backward(of_log_scale, tanh), of_shift]).mul_(SHRINK)
            of_hidden = torch.ops.aten.threshold_backward(block.w2.T @ coefficients, hidden, 0)  # (H, F)
            torch.mm(of_hidden, joined.T, out=of_w1.view_as(block.w1))
            torch.sum(of_hidden, 1, out=of_b1)
            torch.mm(coefficients, hidden.T, out=of_w2.view_as(block.w2))
            torch.sum(coefficients, 1, out=of_b2)
            if number:  # the features in front of the first block are frozen
                below = torch.empty_like(gradient)
                torch.addmm(gradient[:split], block.w1[:, :split].T, of_hidden, out=below[:split])
                below[split:].copy_(scaled)
                gradient = below
        _through_softplus(flat[: sum(sizes[: len(blocks)])], blocks, ctx.saved, weight)
        ctx.saved = ctx.latent = None
        if len(ctx.shapes) == 1:
            return None, None, None, flat
        return None, None, None, *(part.view(shape) for part, shape in zip(found, ctx.shapes, strict=True))


def _through_softplus(
    gradient: torch.Tensor, blocks: Sequence[Coupling], saved: Sequence[tuple[torch.Tensor, ...]], weight: torch.Tensor
) -> None:
    """Convert gradients of the blocks' global scales (K*C,) in place to gradients of the inputs of their softplus."""
    scales = torch.cat([scale for *_, scale in saved]).squeeze(1)  # (K*C,)
    before = torch.cat([block.scale for block in blocks])
    gradient.add_(weight.sum() / scales).mul_(SHRINK * torch.sigmoid(BETA * before))
