"""Scoring of a grid of positions by CFlow's flow; terms that do not depend on the image are computed once."""

from collections.abc import Iterable, Sequence

import torch

from defectlab.kernels.flow.coupling import LOG_SQRT_2PI, SHRINK, Coupling
from defectlab.kernels.linalg import over_chunks


class GridFlow:
    """The flow of one layer, prepared for the positions of one grid.

    With e the position encoding, a block's subnet is W2 relu(W a + t) + b2, where t = V e + b1 is the same for every
    image. Since relu(y + t) = max(y, -t) + t, it is W2 max(W a, -t) + (W2 t + b2): `floors` holds -t, `bases` the last
    sum. The block's global scale and offset are part of these too. Results equal the plain form's up to
    float32 rounding.

    Args:
        encoding: (P, h*w) encodings of the positions.
        blocks: The flow's blocks.
    """

    @torch.no_grad()
    def __init__(self, encoding: torch.Tensor, blocks: Sequence[Coupling]) -> None:
        self.blocks = list(blocks)
        self.channels = len(blocks[0].offset)
        self.constant = self.channels * LOG_SQRT_2PI
        self.firsts, self.floors, self.seconds, self.bases = [], [], [], []
        self.scales: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for block in blocks:
            split, scale, offset = block.split, block.global_scale(), block.offset.unsqueeze(1)
            active = self.channels - split
            second, bias = SHRINK * block.w2, SHRINK * block.b2.unsqueeze(1)
            second[active:] *= scale[split:]
            bias[active:] = bias[active:] * scale[split:] + offset[split:]
            term = torch.addmm(block.b1.unsqueeze(1), block.w1[:, split:], encoding)  # (H, P) @ (P, h*w)
            self.firsts.append(block.w1[:, :split].contiguous())  # (H, S)
            self.seconds.append(second)  # (2 (C - S), H)
            self.bases.append(torch.addmm(bias, second, term))  # (2 (C - S), h*w)
            self.floors.append(term.neg_())  # (H, h*w)
            self.scales.append((scale[:split], offset[:split], scale[split:].log()))
            self.constant += float(scale.log().sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held in addition to the flow itself."""
        return sum(tensor.nbytes for tensor in (*self.firsts, *self.floors, *self.seconds, *self.bases))

    @torch.no_grad()
    def log_likelihood(self, features: torch.Tensor, *, columns: int = 512) -> torch.Tensor:
        """Return the log-likelihood of each position, (B, h, w), of features (B, C, h, w).

        About `columns` vectors are processed at a time: some positions of all images.
        """
        batch, _, height, width = features.shape
        vectors = features.flatten(2)  # (B, C, h, w) -> (B, C, h*w)
        found = features.new_empty((batch, height * width))

        def work(part: slice) -> None:
            found[:, part] = self._chunk(vectors[:, :, part], part)

        chunk = columns // batch
        if features.device.type == "cpu":  # no core without work, however small the grid
            chunk = min(chunk, -(-height * width // torch.get_num_threads()))
        over_chunks(work, height * width, max(1, chunk), features.device)
        return found.unflatten(1, (height, width))

    def _chunk(self, vectors: torch.Tensor, part: slice) -> torch.Tensor:
        """Return the log-likelihoods (B, p) of vectors (B, C, p) at the positions of the slice `part`."""
        batch, channels, positions = vectors.shape
        x = vectors.new_empty((channels, batch, positions)).copy_(vectors.transpose(0, 1)).flatten(1)  # (C, B*p)
        y = torch.empty_like(x)
        log_jacobian = x.new_full((x.shape[1],), self.constant)
        for block, first, floor, second, base, (scale, offset, log_scale) in zip(
            self.blocks, self.firsts, self.floors, self.seconds, self.bases, self.scales, strict=True
        ):
            split, active = block.split, channels - block.split
            hidden = (first @ x[:split]).unflatten(1, (batch, positions))  # (H, B, p)
            torch.maximum(hidden, floor[:, part].unsqueeze(1), out=hidden)
            coefficients = second @ hidden.flatten(1)  # (2 (C - S), B*p)
            coefficients.unflatten(1, (batch, positions)).add_(base[:, part].unsqueeze(1))
            tanh = coefficients[:active].tanh_()
            log_jacobian.add_(tanh.sum(0), alpha=block.clamp)
            factor = torch.add(log_scale, tanh, alpha=block.clamp).exp_()
            torch.addcmul(coefficients[active:], x[split:], factor, out=y[split:])
            torch.addcmul(offset, x[:split], scale, out=y[:split])
            x = block.mix(y)
        return log_jacobian.sub_(x.square_().sum(0), alpha=0.5).unflatten(0, (batch, positions))


def checksum(tensors: Iterable[torch.Tensor]) -> tuple[int, ...]:
    """Return one checksum for each tensor's content, by which later changes of the weights are detected.

    >>> weights = torch.ones(3)
    >>> before = checksum([weights])
    >>> weights.data[1] += 1e-6
    >>> checksum([weights]) == before
    False
    """
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = [tensor.detach().view(whole[tensor.element_size()]).sum() for tensor in tensors]
    return tuple(torch.stack(sums).tolist())
