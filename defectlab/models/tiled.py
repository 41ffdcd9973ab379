"""Tiling of large images: a model's parts are wrapped, so that all else sees whole images."""

from collections.abc import Callable
from typing import Any

import torch
from anomalib.data import InferenceBatch
from torch.nn import functional as F

from defectlab.kernels.tiles import TileGrid
from defectlab_runtime.errors import OptionError

BATCH_SIZE = 16  # tiles
BY_FEATURES = "features of the tiles are joined, and the whole image is scored by the model's own rule"
BY_IMAGES = "each tile is scored as an image; an image's score is the highest of its tiles'"


class TiledScores:
    """Replacement of a torch model's `forward` that scores whole images by their tiles, and tiles as `forward` does."""

    def __init__(self, forward: Callable[[torch.Tensor], Any], grid: TileGrid) -> None:
        self.forward = forward
        self.grid = grid

    def __call__(self, images: torch.Tensor, *more: Any, **options: Any) -> Any:
        """Score images (B, 3, H, W): scores (B,), the highest of the tiles', and maps (B, 1, H, W), joined."""
        if tuple(images.shape[-2:]) != self.grid.whole:
            return self.forward(images, *more, **options)
        scores, maps = [], []
        for tiles in self.grid.cut(images).split(BATCH_SIZE):
            found = self.forward(tiles)
            scores.append(found.pred_score.flatten())
            one = found.anomaly_map.reshape(len(tiles), 1, *found.anomaly_map.shape[-2:])
            if tuple(one.shape[-2:]) != self.grid.tile:
                one = F.interpolate(one, size=self.grid.tile, mode="bilinear", align_corners=False)
            maps.append(one)
        highest = torch.cat(scores).unflatten(0, (len(images), -1)).amax(dim=1)  # (B * T,) -> (B,)
        return InferenceBatch(pred_score=highest, anomaly_map=self.grid.join(torch.cat(maps)))


class TiledFeatures:
    """Replacement of a torch model's `features` that joins those of whole images from those of their tiles."""

    def __init__(self, features: Callable[[torch.Tensor], dict[str, torch.Tensor]], grid: TileGrid) -> None:
        self.features = features
        self.grid = grid

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (B, 3, H, W) to features (B, C, h, w) of each layer."""
        if tuple(images.shape[-2:]) != self.grid.whole:
            return self.features(images)
        found: dict[str, list[torch.Tensor]] = {}
        for tiles in self.grid.cut(images).split(BATCH_SIZE):
            for layer, values in self.features(tiles).items():
                found.setdefault(layer, []).append(values)
        joined = {}
        for layer, parts in found.items():
            values = torch.cat(parts)
            joined[layer] = self.grid.scaled((values.shape[-2], values.shape[-1])).join(values)
        return joined


def set_tiles(name: str, model: Any, grid: TileGrid | None, *, by_images: bool) -> None:
    """Let a torch model score whole images, or compute the features of these, by their tiles; None: no longer.

    Raises:
        OptionError: The features of the tiles cannot be joined in every layer of this model, called `name`.
    """
    for part in ("forward", "features"):
        vars(model).pop(part, None)  # removes the wrapper of an earlier tiling
    if grid is None:
        return
    if by_images:
        model.forward = TiledScores(model.forward, grid)
        return
    for layer, (_, height, width) in model.feature_extractor.feature_shapes(grid.tile).items():
        try:
            grid.scaled((height, width))
        except ValueError as error:
            raise OptionError(
                f"{name}: tiling does not fit {layer}: {error}. Let image_size of the tiling and that of the "
                "model be multiples of 32, and overlap at most half a tile."
            ) from error
    model.features = TiledFeatures(model.features, grid)


def replace_by_tiles(batch: Any, grid: TileGrid, count: int | None) -> None:
    """Replace the whole images of a training batch by their tiles, `count` of each image at random (None: all).

    Draws from torch's global generator, which the engine seeds.
    """
    images = batch.image
    tiles = grid.cut(images).unflatten(0, (len(images), -1))  # (B, T, 3, h, w)
    number = tiles.shape[1] if count is None else min(count, tiles.shape[1])
    if number < tiles.shape[1]:
        chosen = torch.stack([torch.randperm(tiles.shape[1])[:number] for _ in range(len(images))])
        tiles = torch.stack([tiles[row, its.to(tiles.device)] for row, its in enumerate(chosen)])
    batch.image = tiles.flatten(0, 1)
    batch.gt_mask = None
    if batch.gt_label is not None:
        batch.gt_label = batch.gt_label.repeat_interleave(number)
    if batch.image_path is not None:
        batch.image_path = [path for path in batch.image_path for _ in range(number)]
    batch.mask_path = None
