"""Standardisation of backbone features, for models whose training depends on how large the features are."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from defectlab.data.datasets import ImageFiles
from defectlab.models.base import BaseDetector

logger = logging.getLogger(__name__)

BATCH_SIZE = 8
MIN_STD = 0.01  # as a share of the layer's: a channel that is dead in good images must not rule the score in others


class FeatureScaling(nn.Module):
    """Standardises features channel by channel: mean 0 and standard deviation 1 over all positions of good images.

    Args:
        channels: Number of channels of each layer.
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.layers = list(channels)
        for number, width in enumerate(channels.values()):  # a layer's name may have dots, a buffer's may not
            self.register_buffer(f"mean_{number}", torch.zeros(width))
            self.register_buffer(f"std_{number}", torch.ones(width))

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the features (B, C, h, w) of each of the layers, standardised; other entries as they are."""
        scaled = dict(features)
        for number, layer in enumerate(self.layers):
            mean, std = (getattr(self, f"{name}_{number}")[:, None, None] for name in ("mean", "std"))  # (C, 1, 1)
            scaled[layer] = (features[layer] - mean) / std
        return scaled

    @torch.no_grad()
    def fit(self, batches: Iterable[dict[str, torch.Tensor]]) -> None:
        """Take means and standard deviations of features (B, C, h, w), batch after batch, summed in float64.

        A standard deviation below `MIN_STD` of the layer's root mean square is raised to that.
        """
        sums: dict[str, torch.Tensor] = {}  # per layer (3, C): of the values, of their squares, and their count
        for features in batches:
            for layer in self.layers:
                values = features[layer].detach().cpu().double()
                count = torch.full((values.shape[1],), float(values[:, 0].numel()), dtype=torch.float64)
                found = torch.stack([values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3)), count])
                sums[layer] = sums[layer] + found if layer in sums else found
        for number, layer in enumerate(self.layers):
            total, squares, count = sums[layer]
            mean = total / count
            variance = (squares / count - mean.square()).clamp_min(0)  # not below 0 by rounding
            layer_std = float(variance.mean().sqrt())
            std = variance.sqrt().clamp_min(MIN_STD * layer_std or 1.0)
            getattr(self, f"mean_{number}").copy_(mean)
            getattr(self, f"std_{number}").copy_(std)
            logger.info("Features of %s are standardised by the good images: their deviation is %.3g", layer, layer_std)


def feature_scaling(channels: Mapping[str, int], scale_features: bool) -> nn.Module:
    """Return a `FeatureScaling` where it is asked for, else a module that returns features as they are."""
    return FeatureScaling(channels) if scale_features else nn.Identity()


def recorded(scale_features: bool) -> dict[str, Any]:
    """Return the option for a model's record: only where it is on, so that run ids from before it existed stay."""
    return {"scale_features": True} if scale_features else {}


class ScaledFeaturesDetector(BaseDetector):
    """A model that may standardise its features; its torch model has `scaling`, which is fitted before training."""

    def on_train_start(self) -> None:
        """Fit the scaling on the training images of this training, unless a checkpoint that has it is resumed."""
        super().on_train_start()
        if isinstance(self.model.scaling, FeatureScaling) and self.trainer.ckpt_path is None:
            with torch.no_grad():
                self.model.scaling.fit(self._training_features())

    def _training_features(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the features (B, C, h, w) of each layer, of the training images in the manifest's order.

        Images are not augmented. Of a model that scores tile by tile, they are the tiles'.
        """
        manifest, grid = self._datamodule.manifest, self.preprocessing.grid
        files = ImageFiles([manifest.absolute(entry) for entry in manifest.split("train")], self.preprocessing)
        workers = self._datamodule.num_workers
        transform = self.preprocessing.transform()
        for batch in DataLoader(files, batch_size=BATCH_SIZE, collate_fn=files.collate_fn, num_workers=workers):
            images = transform(batch.image.to(self.device))
            tiles = grid.cut(images) if grid is not None and self.tiled_by == "images" else images
            for part in tiles.split(BATCH_SIZE):
                yield self.model.features(part)
