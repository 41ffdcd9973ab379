"""CFlow's conditional coupling flow, with what its plain form computes in vain left out.

A block of anomalib's decoder (FrEIA's AllInOneBlock) joins the position encoding to one half of the channels, predicts
scale and shift of the other half, scales all channels and permutes them by a matrix product. Here vectors are columns
(C, F), so that halves are views and a permutation is a copy of rows. Training has its gradients written out, without
those of the encoding and of the features; `flow_grid` scores. Numbers equal plain's up to float32 rounding.
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
        """Channels that are read."""
        return len(self.offset) - len(self.b2) // 2

    @property
    def trained(self) -> tuple[torch.Tensor, ...]:
        """The tensors that get gradients."""
        return self.w1, self.b1, self.w2, self.b2, self.scale, self.offset

    def mix(self, columns: torch.Tensor) -> torch.Tensor:
        """Permute or rotate the channels of (C, F)."""
        if self.order is not None:
            return columns.index_select(0, self.order)
        assert self.rotation is not None
        return self.rotation @ columns

    def unmix(self, columns: torch.Tensor) -> torch.Tensor:
        """Transposed `mix`, which is its inverse."""
        if self.order is not None:
            return torch.empty_like(columns).index_copy_(0, self.order, columns)
        assert self.rotation is not None
        return self.rotation.T @ columns

    def global_scale(self) -> torch.Tensor:
        """Return the positive factor of each channel (C, 1)."""
        return SHRINK * F.softplus(self.scale, beta=BETA).unsqueeze(1)


def permutation_of(matrix: torch.Tensor) -> torch.Tensor | None:
    """Return the order that a permutation matrix (C, C) brings channels into; None if it is none.

    >>> permutation_of(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist()
    [1, 0]
    """
    order = matrix.argmax(1)
    exact = torch.zeros_like(matrix).scatter_(1, order.unsqueeze(1), 1.0)
    return order if torch.equal(matrix, exact) and len(order.unique()) == len(order) else None


def flow_log_likelihood(fibers: torch.Tensor, encoding: torch.Tensor, blocks: Sequence[Coupling]) -> torch.Tensor:
    """Return the log-likelihood (F,) of fibers (F, C) at encodings (F, P), differentiable in the blocks' tensors."""
    tensors = [tensor for block in blocks for tensor in block.trained]
    result: torch.Tensor = _Flow.apply(fibers.T.contiguous(), encoding.T.contiguous(), list(blocks), *tensors)
    return result


class _Flow(torch.autograd.Function):
    """The whole flow as one node, from columns x (C, F) and encodings c (P, F) to log-likelihoods (F,)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, c: torch.Tensor, blocks: list[Coupling], *tensors: torch.Tensor
    ) -> torch.Tensor:
        del tensors  # the blocks hold them; they are arguments so that autograd asks for their gradients
        channels = len(x)
        log_jacobian = torch.zeros(x.shape[1], dtype=x.dtype, device=x.device)
        kept = []
        for block in blocks:
            split = block.split
            joined = torch.cat([x[:split], c])  # (S + P, F)
            hidden = torch.addmm(block.b1.unsqueeze(1), block.w1, joined).relu_()  # (H, F)
            coefficients = torch.addmm(block.b2.unsqueeze(1), block.w2, hidden).mul_(SHRINK)
            tanh = coefficients[: channels - split].tanh()
            log_scale = tanh * block.clamp
            factor = log_scale.exp()
            changed = torch.addcmul(coefficients[channels - split :], x[split:], factor)
            both = torch.cat([x[:split], changed])  # (C, F)
            scale = block.global_scale()
            kept.append((joined, hidden, tanh, factor, x[split:], both, scale))
            log_jacobian += log_scale.sum(0) + scale.log().sum()
            x = block.mix(torch.addcmul(block.offset.unsqueeze(1), both, scale))
        ctx.blocks, ctx.kept, ctx.latent = blocks, kept, x
        return log_jacobian.sub_(x.square().sum(0), alpha=0.5).add_(channels * LOG_SQRT_2PI)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight = outer[0]  # (F,)
        total = weight.sum()
        gradient = ctx.latent.mul(weight).neg_()  # of the half square of the latent columns
        found: list[tuple[torch.Tensor | None, ...]] = []
        for number in range(len(ctx.blocks) - 1, -1, -1):
            block = ctx.blocks[number]
            joined, hidden, tanh, factor, passive, both, scale = ctx.kept[number]
            split = block.split
            gradient = block.unmix(gradient)  # (C, F)
            of_offset = gradient.sum(1)
            of_scale = (gradient * both).sum(1) + total / scale.squeeze(1)
            of_scale *= SHRINK * torch.sigmoid(BETA * block.scale)
            gradient = gradient.mul_(scale)
            active = gradient[split:]  # also the shift's gradient
            scaled = active * factor
            log_scale = (scaled * passive).add_(weight).mul_(block.clamp)
            of_tanh = torch.addcmul(log_scale, log_scale, tanh.square_(), value=-1)
            coefficients = torch.cat([of_tanh, active]).mul_(SHRINK)  # (2 (C - S), F)
            of_hidden = (block.w2.T @ coefficients).mul_(hidden > 0)
            found.append(
                (
                    of_hidden @ joined.T,
                    of_hidden.sum(1),
                    coefficients @ hidden.T,
                    coefficients.sum(1),
                    of_scale,
                    of_offset,
                )
            )
            if number:  # the features in front of the first block are frozen
                gradient = torch.cat([torch.addmm(gradient[:split], block.w1[:, :split].T, of_hidden), scaled])
        ctx.kept = ctx.latent = None
        return None, None, None, *(tensor for block_gradients in reversed(found) for tensor in block_gradients)
