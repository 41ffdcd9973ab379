"""The part of a trained model that an exported file holds: from resized images to raw scores and maps."""

from typing import Any

import torch
from torch import nn

from defectlab.export.score_forms import CflowScores, PadimScores, PatchcoreScores
from defectlab.kernels.tiles import TileGrid
from defectlab.models.base import BaseDetector
from defectlab.models.cflow.torch_model import CflowModel
from defectlab.models.efficient_ad.torch_model import EfficientAdModel
from defectlab.models.padim.lightning_model import PadimModel
from defectlab.models.patchcore.torch_model import PatchcoreModel
from defectlab.models.tiled import TiledFeatures, TiledScores
from defectlab_runtime.geometry import crop_padding


class ExportGraph(nn.Module):
    """Centre crop, tiling, normalisation and the model; resizing comes before it (`defectlab_runtime`).

    The model is taken over: it must not be used otherwise afterwards. Everything is float32 on the CPU.

    Args:
        detector: A trained model.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, detector: BaseDetector) -> None:
        super().__init__()
        preprocessing = detector.preprocessing
        self.whole_size = preprocessing.whole_size
        (top, _), (left, _) = crop_padding(self.whole_size, preprocessing.crop or self.whole_size)
        height, width = preprocessing.map_size
        self.rows, self.columns = slice(top, top + height), slice(left, left + width)
        self.image_size = preprocessing.map_size
        self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).reshape(3, 1, 1))
        self.network = exportable(detector.model.float().cpu().eval(), self.image_size)
        self.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Score images (B, 3, H, W) in [0, 1] of `whole_size`: raw scores (B,) and, if any, raw maps (B, 1, h, w)."""
        seen = images[:, :, self.rows, self.columns]
        found = self.network((seen - self.mean) / self.std)
        scores = found[0].reshape(images.shape[0])
        maps = found[1]
        if maps is None:
            return (scores,)
        return scores, maps.reshape(images.shape[0], 1, maps.shape[-2], maps.shape[-1])


def exportable(network: Any, image_size: tuple[int, int]) -> nn.Module:
    """Return a module that gives scores and maps of a torch model's input as a pair, in traceable operations."""
    if isinstance(network, EfficientAdModel):  # it looks at values: whether the maps' scales were fitted
        fitted = {id(values): bool(network.is_set(values)) for values in (network.mean_std, network.quantiles)}
        vars(network)["is_set"] = lambda values: fitted[id(values)]
    tiles = [vars(network).pop(part, None) for part in ("forward", "features")]
    whole = _Parts(network, tiles[1].grid if tiles[1] else None, image_size) if _has_form(network) else _Whole(network)
    if tiles[0] is not None:
        assert isinstance(tiles[0], TiledScores)
        return _TiledScores(whole, tiles[0].grid)
    if tiles[1] is not None and not _has_form(network):
        assert isinstance(tiles[1], TiledFeatures)
        network.features = _TracedTiles(network.features, tiles[1].grid)
    return whole


def _has_form(network: nn.Module) -> bool:
    return isinstance(network, PadimModel | PatchcoreModel | CflowModel)


class _Whole(nn.Module):
    """A torch model whose own `forward` can be traced."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        found = self.network(images)
        return found.pred_score, None if found.anomaly_map is None else found.anomaly_map.float()


class _Parts(nn.Module):
    """A torch model's features and embedding, with scores in a form that can be traced."""

    def __init__(self, network: Any, grid: TileGrid | None, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.features = network.features if grid is None else _TracedTiles(network.features, grid)
        self.image_size = image_size
        self.scores: nn.Module
        if isinstance(network, PadimModel):
            self.scores = PadimScores(network)
        elif isinstance(network, PatchcoreModel):
            self.scores = PatchcoreScores(network)
        else:
            with torch.no_grad():
                embedding = network.embed(self.features(torch.zeros((1, 3, *image_size))))
            self.scores = CflowScores(network, [tuple(one.shape[1:]) for one in embedding])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.scores(self.network.embed(self.features(images)), self.image_size)


class _TracedTiles:
    """The features of whole images joined from their tiles', as `TiledFeatures`, for batches of any size."""

    def __init__(self, features: Any, grid: TileGrid) -> None:
        self.features = features
        self.grid = grid

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        found = [self.features(tile) for tile in _cut(images, self.grid)]
        return {layer: _joined([one[layer] for one in found], self.grid) for layer in found[0]}


class _TiledScores(nn.Module):
    """Whole images scored by their tiles, as `TiledScores`, for batches of any size."""

    def __init__(self, whole: nn.Module, grid: TileGrid) -> None:
        super().__init__()
        self.whole = whole
        self.grid = grid

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores, maps = [], []
        for tile in _cut(images, self.grid):
            score, one = self.whole(tile)
            scores.append(score.reshape(tile.shape[0]))
            one = one.reshape(tile.shape[0], 1, one.shape[-2], one.shape[-1])
            if tuple(one.shape[-2:]) != self.grid.tile:
                one = nn.functional.interpolate(one, size=self.grid.tile, mode="bilinear", align_corners=False)
            maps.append(one)
        return torch.stack(scores).amax(0), _joined(maps, self.grid)


def _cut(images: torch.Tensor, grid: TileGrid) -> list[torch.Tensor]:
    height, width = grid.tile
    return [images[:, :, top : top + height, left : left + width] for top, left in grid.places]


def _joined(tiles: list[torch.Tensor], grid: TileGrid) -> torch.Tensor:
    own = grid.scaled((tiles[0].shape[-2], tiles[0].shape[-1]))
    return own.join(torch.stack(tiles, dim=1).flatten(0, 1))
