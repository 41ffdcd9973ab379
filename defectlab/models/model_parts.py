"""The structure of the torch models: the parts features, embed, fit and score, which `forward` combines."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from anomalib.data import InferenceBatch
from torch import nn


class FourParts(nn.Module):
    """Mixin before anomalib's torch model, or alone: `features`, `embed`, `fit` and `score` are the model's own."""

    feature_extractor: Any

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (B, 3, H, W) to features (B, C, h, w) of each layer."""
        return self.feature_extractor(images)

    def embed(self, features: dict[str, torch.Tensor]) -> Any:
        """Return the embedding of features, which is compared with good images."""
        raise NotImplementedError

    def score(self, embedding: Any, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return raw scores (B,) and raw maps (B, 1, H, W) of an embedding."""
        raise NotImplementedError

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images (B, 3, H, W)."""
        image_size = (images.shape[-2], images.shape[-1])
        scores, maps = self.score(self.embed(self.features(images)), image_size)
        return InferenceBatch(pred_score=scores, anomaly_map=maps)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode inside the block."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
