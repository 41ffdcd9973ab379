"""FeatCAE: an autoencoder of frozen backbone features (the feature part of DFR, Yang et al., 2020, arXiv:2012.07122).

Trained on good images, it reconstructs unfamiliar features poorly: the squared error is the anomaly map.
"""

import itertools
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from anomalib import LearningType
from torch import nn
from torch.nn import functional as F

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.evaluation.threshold import DefaultRule, RuleOptions, check_options
from defectlab.models.checks import check_layers
from defectlab.models.feature_scaling import feature_scaling, recorded
from defectlab.models.frozen_features import FrozenBackboneDetector, features_repeat
from defectlab.models.model_parts import FourParts
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.utils.seeds import seeded
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import OptionError

logger = logging.getLogger(__name__)

POOL = 3  # cells a side, stride 1, no padding


class FeatureAutoencoder(nn.Module):
    """1x1 convolutions C -> (C + 2d) // 2 -> 2d -> d and back, ReLU between, linear at the end of each half."""

    def __init__(self, channels: int, latent_dim: int, batch_norm: bool) -> None:
        super().__init__()
        widths = [channels, (channels + 2 * latent_dim) // 2, 2 * latent_dim, latent_dim]
        self.encoder = _half(widths, batch_norm)
        self.decoder = _half(widths[::-1], batch_norm)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Encode and decode features (B, C, h, w)."""
        return self.decoder(self.encoder(embedding))


def _half(widths: Sequence[int], batch_norm: bool) -> nn.Sequential:
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        inside = after != widths[-1]
        # Batch norm cancels a bias: its gradient would be rounding errors only, by which Adam would still move it.
        parts.append(nn.Conv2d(before, after, kernel_size=1, bias=not (inside and batch_norm)))
        if inside:
            parts += [nn.BatchNorm2d(after), nn.ReLU()] if batch_norm else [nn.ReLU()]
    return nn.Sequential(*parts)


class FeatCaeModel(FourParts):
    """FeatCAE's features, embed, fit and score.

    Args:
        backbone: Frozen; its features are what is rebuilt.
        layers: In any order; the first one's size is the grid.
        latent_dim: Channels in the middle of the autoencoder.
        batch_norm: Between its layers.
        border: Cells at each edge of the grid that neither score nor map looks at.
        top_pixels: Cells, the worst ones, whose mean error is the score.
        seed: Initialises the autoencoder.
        scale_features: Standardise features before they are pooled.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: Sequence[str],
        *,
        latent_dim: int,
        batch_norm: bool,
        border: int,
        top_pixels: int,
        seed: int,
        scale_features: bool = False,
    ) -> None:
        super().__init__()
        self.layers = list(layers)
        self.border = border
        self.top_pixels = top_pixels
        self.feature_extractor = FeatureExtractor(backbone, layers)
        self.scaling = feature_scaling(dict(zip(layers, self.feature_extractor.out_dims, strict=True)), scale_features)
        self._plan = (sum(self.feature_extractor.out_dims), latent_dim, batch_norm)
        self.autoencoder = self._fresh(seed)

    def embed(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Average each layer over 3 x 3 cells, bring all to the first one's size and join them: (B, C, h, w)."""
        height, width = features[self.layers[0]].shape[-2:]
        scaled = self.scaling(features)
        pooled = [F.avg_pool2d(scaled[layer], POOL, stride=1) for layer in self.layers]  # h -> h - 2
        return torch.cat([F.adaptive_avg_pool2d(feature, (height, width)) for feature in pooled], dim=1)

    def fit(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return the losses (B,) to step on: each image's mean squared error over channels and grid."""
        return self.errors(embedding).mean(dim=(1, 2, 3))

    def errors(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return the squared error of the rebuilt features, a mean over channels: (B, 1, h, w)."""
        return (self.autoencoder(embedding) - embedding).square().mean(dim=1, keepdim=True)

    def score(self, embedding: torch.Tensor, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,) and maps (B, 1, H, W), in one unit.

        Both see the grid without its border; in the map the border is 0. The score is the mean of the `top_pixels`
        largest errors.
        """
        return self.scored(self.errors(embedding), image_size)

    def scored(self, errors: torch.Tensor, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,) and maps (B, 1, H, W) of errors (B, 1, h, w) as `score` does."""
        height, width = errors.shape[-2:]
        cut = self.border
        inner = errors[..., cut : height - cut, cut : width - cut]
        scores = inner.flatten(1).topk(self.top_pixels, dim=1).values.mean(dim=1)
        # Repeating the edge prevents the removed border from influencing the interpolated map.
        whole = F.pad(inner, (cut, cut, cut, cut), mode="replicate") if cut else inner
        maps = F.interpolate(whole, size=image_size, mode="bilinear", align_corners=False)
        rows, columns = (cut * image_size[0] // height, cut * image_size[1] // width)
        seen = torch.zeros_like(maps[:1])
        seen[..., rows : image_size[0] - rows, columns : image_size[1] - columns] = 1
        return scores, maps * seen

    def begin_anew(self, seed: int) -> None:
        """Reset the autoencoder to its initial weights of the seed, in place."""
        self.autoencoder.load_state_dict(self._fresh(seed).state_dict())

    def check_size(self, input_size: tuple[int, int]) -> None:
        """Check that the feature grids of an input size are large enough for pooling, border and score.

        Raises:
            OptionError: With the grid and what would work.
        """
        shapes = self.feature_extractor.feature_shapes(input_size)
        for layer, (_, height, width) in shapes.items():
            if min(height, width) < POOL:
                raise OptionError(
                    f"FeatCae: {layer} is {height} x {width} at an input of {input_size}, too small for a mean over "
                    f"{POOL} x {POOL} cells: take a larger image_size, or leave the layer out."
                )
        _, height, width = shapes[self.layers[0]]
        left = max(0, height - 2 * self.border) * max(0, width - 2 * self.border)
        if left < self.top_pixels:
            raise OptionError(
                f"FeatCae: without a border of {self.border} cells the grid of {height} x {width} ({self.layers[0]} at "
                f"an input of {input_size}) leaves {left} cells, fewer than top_pixels={self.top_pixels}: take a "
                "larger image_size, a smaller border, or an earlier layer first."
            )

    def _fresh(self, seed: int) -> FeatureAutoencoder:
        with seeded(seed, "featcae autoencoder"):
            return FeatureAutoencoder(*self._plan)


class FeatCae(FrozenBackboneDetector):
    """An autoencoder of 1x1 convolutions over frozen backbone features; where it fails, the part is anomalous.

    Images train it through features computed once, so an epoch costs no backbone. The threshold is the mean of the
    scores of good validation images plus `threshold_k` standard deviations; maps have the unit of the scores, so it is
    the maps' threshold too.

    Args:
        backbone: From `load_backbone`, a torch module, or a name whose weights are at hand.
        layers: In any order; the first one's size is the grid. The autoencoder's channels follow from them.
        pre_trained: For a name: True looks for its weights locally. Ignored for a module.
        latent_dim: Channels in the middle of the autoencoder.
        batch_norm: Batch norm between its layers.
        lr: Adam's learning rate.
        border: Cells at each edge of the grid that are not looked at: 0 for parts that reach the image's edge.
        top_pixels: The score is the mean of so many of the largest errors.
        threshold_k: Standard deviations above the mean at which the threshold lies.
        scale_features: Standardise each channel of the features by the good training images (`FeatureScaling`).
        seed: Initialises the autoencoder.

    Raises:
        OptionError: An option that cannot work.
        WeightsError: A layer whose weights are missing from the file.
    """

    model_name: ClassVar[str] = "featcae"
    tiled_by: ClassVar[str | None] = "features"
    model: FeatCaeModel

    @takes_shared_arguments
    def __init__(
        self,
        backbone: str | nn.Module = "resnet50",
        layers: Sequence[str] = ("layer2",),
        pre_trained: bool = True,
        latent_dim: int = 100,
        batch_norm: bool = True,
        lr: float = 1e-3,
        border: int = 3,
        top_pixels: int = 10,
        threshold_k: float = 3.0,
        scale_features: bool = False,
        shared: SharedArguments = DEFAULTS,
    ) -> None:
        layers = check_layers("FeatCae", layers)
        for name, value, low in (("latent_dim", latent_dim, 1), ("border", border, 0), ("top_pixels", top_pixels, 1)):
            check_integer("FeatCae", name, value, low=low)
        check_range("FeatCae", "lr", lr, low=0, open_low=True)
        check_range("FeatCae", "threshold_k", threshold_k, low=0)
        if not isinstance(batch_norm, bool):
            raise OptionError(f"FeatCae: batch_norm must be true or false, got {batch_norm!r}.")
        network = self.resolve_backbone(backbone, pre_trained, shared.seed)
        shape: dict[str, Any] = {
            "latent_dim": latent_dim,
            "batch_norm": batch_norm,
            "border": border,
            "top_pixels": top_pixels,
        }
        model = FeatCaeModel(network, layers, **shape, seed=shared.seed, scale_features=scale_features)
        self.set_up(
            super().__init__,
            options={"layers": layers, **shape, "lr": lr, "threshold_k": float(threshold_k)} | recorded(scale_features),
            backbone=network,
            shared=shared,
        )
        model.check_size(self.preprocessing.input_size)
        check_options(self.default_rule.rule, self.default_rule.options)
        self.model = model
        self._losses: torch.Tensor | None = None

    @property
    def default_rule(self) -> DefaultRule:
        """Mean plus `threshold_k` standard deviations of good validation scores, for scores and maps alike."""
        return DefaultRule("mean_plus_k_std", RuleOptions(k=self.options["threshold_k"]), pixel_as_image=True)

    @property
    def learning_type(self) -> LearningType:
        """Learning type of the model: it is trained on good images only."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments for Lightning's Trainer: no trial run of the validation before training."""
        return {"num_sanity_val_steps": 0}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over the autoencoder alone."""
        return torch.optim.Adam(self.model.autoencoder.parameters(), lr=self.options["lr"])

    def on_train_start(self) -> None:
        """Reset the autoencoder unless a checkpoint is resumed; store training embeddings if they never change."""
        super().on_train_start()
        if self.trainer.ckpt_path is None:
            self.model.begin_anew(self.seed)
        if features_repeat(self._datamodule):
            self.open_store("train", "validation")
            self.store_training_images()

    def trains_on_names(self, datamodule: Any) -> bool:
        """Whether training needs no pixels, since embeddings are stored; false if images are augmented."""
        return features_repeat(datamodule)

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the mean squared error of a batch."""
        del args, kwargs
        (embedding,) = self.embedding(batch)
        loss = self.model.fit(embedding).mean()
        self.log_losses(batch, train_loss=loss)
        return loss

    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Score one validation batch, and store its losses for `image_losses`."""
        del args, kwargs
        (embedding,) = self.embedding(batch)
        errors = self.model.errors(embedding)
        self._losses = errors.mean(dim=(1, 2, 3))
        scores, maps = self.model.scored(errors, self.preprocessing.map_size)
        return batch.update(pred_score=scores, anomaly_map=maps)

    def test_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Score one test batch, as in validation."""
        return self.validation_step(batch, *args, **kwargs)

    def image_losses(self, batch: Any) -> torch.Tensor | None:
        """Return the losses (B,) of the validation batch just scored: what training minimises, image by image."""
        del batch
        return self._losses


__all__ = ["FeatCae", "FeatCaeModel", "FeatureAutoencoder"]
