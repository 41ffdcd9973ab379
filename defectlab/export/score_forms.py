"""Scores of PaDiM, PatchCore and CFlow in operations that a graph file can hold: no solver, no search, no loop.

The models' own kernels look at sizes, work in place and skip what a bound rules out; a traced graph cannot. Each form
here computes what its kernel does, for batches of any size.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from defectlab.kernels.flow.grid import GridFlow
from defectlab.kernels.gaussian.fit import REGULARISATION, STABILISATION, Gaussian
from defectlab.kernels.neighbours import squared_norms
from defectlab.models.cflow.torch_model import CflowModel, couplings
from defectlab.models.padim.lightning_model import PadimModel
from defectlab.models.patchcore.scores import PATCH_SCORES, top_mean
from defectlab.models.patchcore.torch_model import PatchcoreModel
from defectlab_runtime.errors import InputError

BANK_BLOCK = 2048  # rows of a memory bank per product: bounds the memory of a search, whatever the bank's size

Scores = tuple[torch.Tensor, torch.Tensor]
Size = tuple[int, int]


class PadimScores(nn.Module):
    """Mahalanobis distances by one product a position with a matrix that is computed once.

    The solve with a Cholesky factor L becomes a product with its inverse, computed in float64. In the low-rank form
    (centred rows A and the factor of K = l(N-1) I + A A^T) the weights of the rows are delta A^T K^-1.
    """

    mean: torch.Tensor
    matrix: torch.Tensor
    rows: torch.Tensor

    def __init__(self, model: PadimModel) -> None:
        super().__init__()
        gaussian: Gaussian = model.gaussian.value
        self.register_buffer("mean", gaussian.mean)
        self.form = gaussian.form
        if gaussian.inverse is not None:
            self.register_buffer("matrix", gaussian.inverse)
            return
        assert gaussian.factor is not None
        eye = torch.eye(gaussian.factor.shape[-1], dtype=torch.float64)
        inverse = torch.empty_like(gaussian.factor)  # L^-1 of each position, (P, n, n)
        for place, factor in enumerate(gaussian.factor):
            inverse[place] = torch.linalg.solve_triangular(factor.double(), eye, upper=False).float()
        if gaussian.rows is None:
            self.register_buffer("matrix", inverse.mT.contiguous())
        else:
            self.register_buffer("rows", gaussian.rows)
            self.register_buffer("matrix", torch.bmm(gaussian.rows.mT, torch.bmm(inverse.mT, inverse)))  # (P, C, N)

    def forward(self, embedding: torch.Tensor, image_size: Size) -> Scores:
        """Return scores (B,) and maps (B, 1, H, W) of embeddings (B, C, h, w)."""
        height, width = embedding.shape[-2:]
        delta = (embedding.flatten(2) - self.mean).permute(2, 0, 1)  # (B, C, P) -> (P, B, C)
        product = torch.bmm(delta, self.matrix)
        if self.form == "factor":
            squared = product.square().sum(2)
        elif self.form == "inverse":
            squared = (product * delta).sum(2)
        else:
            ridge = REGULARISATION + STABILISATION
            rest = delta - torch.bmm(product, self.rows)
            weight = ridge * (self.rows.shape[1] - 1)
            squared = (rest.square().sum(2) + weight * product.square().sum(2)) / ridge
        distances = squared.T.clamp(min=0).sqrt().unflatten(1, (height, width)).unsqueeze(1)  # (P, B) -> (B, 1, h, w)
        return PadimModel.from_distances(distances, image_size)


class PatchcoreScores(nn.Module):
    """An exact search through blocks of the bank: memory for `BANK_BLOCK` rows at a time, not for all distances.

    As in `kernels.neighbours`, the nearest rows are chosen by |y|^2 - 2 x.y and measured as norms of differences.
    """

    bank: torch.Tensor
    norms: torch.Tensor

    def __init__(self, model: PatchcoreModel) -> None:
        super().__init__()
        self.model = model
        bank = model.memory_bank.float()
        self.register_buffer("bank", bank)
        self.register_buffer("norms", squared_norms(bank))
        self.computation = model.score_computation
        self.neighbours = min(model.num_neighbors, len(bank))
        if getattr(model, "masks_background", False):
            raise InputError(
                "PatchCore with a foreground_mask that is in use cannot be exported: the mask's principal component is "
                "computed for each image by a solver that graphs do not have. Train it with foreground_mask=False."
            )

    def forward(self, embedding: torch.Tensor, image_size: Size) -> Scores:
        """Return scores (B,) and maps (B, 1, H, W) of embeddings (B, C, h, w)."""
        height, width = embedding.shape[-2:]
        positions = height * width
        patches = self.model.comparable(embedding.permute(0, 2, 3, 1).flatten(0, 2))  # (B, C, h, w) -> (B*h*w, C)
        of_patches = 1 if self.computation == "anomalib" else self.neighbours
        places = self._nearest(patches, of_patches)  # (B*h*w, k)
        found = torch.linalg.vector_norm(patches.unsqueeze(1) - self.bank[places], dim=2)
        found = self.model.measured(found).unflatten(0, (-1, positions))  # (B, h*w, k)
        if self.computation != "anomalib":
            scores, per_patch = PATCH_SCORES[self.computation](found)
        else:
            per_patch = found.squeeze(2)
            scores = self._reweighted(per_patch, places.unflatten(0, (-1, positions)).squeeze(2), patches)
        if self.model.top_share is not None:
            scores = top_mean(per_patch, self.model.top_share)
        return scores, PatchcoreModel.maps(per_patch.unflatten(1, (height, width)).unsqueeze(1), image_size)

    def _nearest(self, patches: torch.Tensor, k: int) -> torch.Tensor:
        """Return which rows of the bank are the `k` nearest to each patch (Q, C), nearest first: (Q, k)."""
        best, places = None, None
        for begin in range(0, len(self.bank), BANK_BLOCK):
            rows, norms = self.bank[begin : begin + BANK_BLOCK], self.norms[begin : begin + BANK_BLOCK]
            values = norms - 2 * (patches @ rows.T)  # (Q, block)
            if k == 1:
                values, index = values.min(dim=1, keepdim=True)
            else:
                values, index = values.topk(min(k, len(rows)), dim=1, largest=False)
            index = index + begin
            if best is None or places is None:
                best, places = values, index
            elif k == 1:
                nearer = values < best
                best, places = torch.where(nearer, values, best), torch.where(nearer, index, places)
            else:
                joined, all_places = torch.cat([best, values], 1), torch.cat([places, index], 1)
                best, order = joined.topk(min(k, joined.shape[1]), dim=1, largest=False)
                places = all_places.gather(1, order)
        assert places is not None
        return places

    def _reweighted(self, distances: torch.Tensor, places: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Return scores (B,): the farthest patch's distance, re-weighted by the bank rows around its nearest one."""
        score, farthest = distances.max(dim=1, keepdim=True)  # (B, 1)
        if self.neighbours == 1:
            return score.squeeze(1)
        nearest = places.gather(1, farthest).squeeze(1)  # (B,)
        per_image = patches.unflatten(0, (-1, distances.shape[1]))  # (B*h*w, C) -> (B, h*w, C)
        patch = per_image.gather(1, farthest.unsqueeze(2).expand(-1, -1, patches.shape[1]))  # (B, 1, C)
        around = self._nearest(self.bank[nearest], self.neighbours)  # (B, k), the first is the row itself
        to_support = self.model.measured(torch.linalg.vector_norm(patch - self.bank[around], dim=2))  # (B, k)
        return (1 - torch.softmax(to_support, dim=1)[:, 0]) * score.squeeze(1)


class CflowScores(nn.Module):
    """CFlow's flow with the terms of the position encoding computed once, as in `GridFlow`, without its chunks."""

    def __init__(self, model: CflowModel, shapes: list[tuple[int, int, int]]) -> None:
        super().__init__()
        self.model = model
        self.layers = nn.ModuleList(
            _GridFlowForm(GridFlow(model._encoding(torch.empty((1, *shape))), couplings(decoder)))
            for shape, decoder in zip(shapes, model.decoders, strict=True)
        )

    def forward(self, embedding: list[torch.Tensor], image_size: Size) -> Scores:
        """Return scores (B,) and maps (B, 1, H, W) of the layers' features, (B, C, h, w) each."""
        total = torch.zeros(())
        for flow, feature in zip(self.layers, embedding, strict=True):
            log_likelihood = flow(feature)
            likelihood = torch.exp(log_likelihood - log_likelihood.amax(dim=(-2, -1), keepdim=True)).unsqueeze(1)
            total = total + F.interpolate(likelihood, size=image_size, mode="bilinear", align_corners=True)
        maps = total.amax(dim=(-3, -2, -1), keepdim=True) - total
        return maps.amax(dim=(-3, -2, -1)), maps


class _GridFlowForm(nn.Module):
    """One layer's `GridFlow` without in-place operations; its log-likelihoods are per feature."""

    def __init__(self, flow: GridFlow) -> None:
        super().__init__()
        self.constant, self.channels = flow.constant, flow.channels
        self.splits = [block.split for block in flow.blocks]
        self.clamps = [block.clamp for block in flow.blocks]
        self.orders = [block.order is not None for block in flow.blocks]
        for number, block in enumerate(flow.blocks):
            scale, offset, log_scale = flow.scales[number]
            held = {
                "first": flow.firsts[number], "floor": flow.floors[number], "second": flow.seconds[number],
                "base": flow.bases[number], "scale": scale, "offset": offset, "log_scale": log_scale,
                "mixing": block.order if block.order is not None else block.rotation,
            }  # fmt: skip
            for name, tensor in held.items():
                assert tensor is not None
                self.register_buffer(f"{name}_{number}", tensor.detach().clone())

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """Return log-likelihoods per feature (B, h, w) of features (B, C, h, w)."""
        x = feature.flatten(2)  # (B, C, h, w) -> (B, C, P)
        log_jacobian = torch.full((), self.constant)
        for number, (split, clamp, permuted) in enumerate(zip(self.splits, self.clamps, self.orders, strict=True)):

            def held(name: str, number: int = number) -> Any:
                return getattr(self, f"{name}_{number}")

            active = self.channels - split
            hidden = torch.maximum(held("first") @ x[:, :split], held("floor"))  # (H, S) @ (B, S, P)
            coefficients = held("second") @ hidden + held("base")  # (B, 2 (C - S), P)
            tanh = torch.tanh(coefficients[:, :active])
            log_jacobian = log_jacobian + clamp * tanh.sum(1)
            changed = coefficients[:, active:] + x[:, split:] * torch.exp(held("log_scale") + clamp * tanh)
            y = torch.cat([held("offset") + x[:, :split] * held("scale"), changed], dim=1)
            x = y.index_select(1, held("mixing")) if permuted else held("mixing") @ y
        found = (log_jacobian - 0.5 * x.square().sum(1)) / self.channels
        return found.unflatten(1, (feature.shape[-2], feature.shape[-1]))
