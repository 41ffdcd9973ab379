"""FastFlow: 2D normalising flows over backbone features (Yu et al., 2021, arXiv:2111.07677)."""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from anomalib.models.image.fastflow.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.fastflow.lightning_model import Fastflow as AnomalibFastflow
from anomalib.models.image.fastflow.loss import FastflowLoss
from anomalib.models.image.fastflow.torch_model import FastflowModel as AnomalibFastflowModel
from anomalib.models.image.fastflow.torch_model import create_fast_flow_block
from torch import nn

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.models.checks import check_layers
from defectlab.models.feature_scaling import ScaledFeaturesDetector, feature_scaling, recorded
from defectlab.models.model_parts import FourParts
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.utils.seeds import seeded
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import OptionError

logger = logging.getLogger(__name__)


class FastflowModel(FourParts, AnomalibFastflowModel):
    """FastFlow's features, embed, fit and score, built for one input size, over any layers of any backbone.

    State-dict keys of norms and flows are plain anomalib's.
    """

    feature_extractor: FeatureExtractor

    def __init__(
        self,
        backbone: Backbone,
        layers: Sequence[str],
        input_size: tuple[int, int],
        *,
        flow_steps: int,
        conv3x3_only: bool,
        hidden_ratio: float,
        seed: int,
        scale_features: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.input_size = input_size
        self.layers = list(layers)
        self.feature_extractor = FeatureExtractor(backbone, layers)
        # the true shapes: anomalib takes size / stride, rounded down, which odd sizes do not have
        shapes = [list(shape) for shape in self.feature_extractor.feature_shapes(input_size).values()]
        for layer, (channels, _, _) in zip(self.layers, shapes, strict=True):
            if channels < 2 or int((channels - channels // 2) * hidden_ratio) < 1:
                raise OptionError(
                    f"Fastflow: hidden_ratio={hidden_ratio} leaves no channel for layer '{layer}' with its {channels}; "
                    "take a larger one."
                )
        self.scaling = feature_scaling(dict(zip(layers, self.feature_extractor.out_dims, strict=True)), scale_features)
        self.norms = nn.ModuleList(nn.LayerNorm(shape, elementwise_affine=True) for shape in shapes)
        with seeded(seed, "fastflow flows"):
            self.fast_flow_blocks = nn.ModuleList(
                create_fast_flow_block(
                    input_dimensions=shape, conv3x3_only=conv3x3_only, hidden_ratio=hidden_ratio, flow_steps=flow_steps
                )
                for shape in shapes
            )
        self.anomaly_map_generator = AnomalyMapGenerator(input_size=input_size)
        self.loss = FastflowLoss()

    def embed(self, features: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Normalise each layer's features, (B, C, h, w) each; the norms learn with the flows."""
        scaled = self.scaling(features)
        return [norm(scaled[layer]) for norm, layer in zip(self.norms, self.layers, strict=True)]

    def fit(self, embedding: list[torch.Tensor]) -> torch.Tensor:
        """Return the mean negative log-likelihood of the images of a batch."""
        latents, log_jacobians = zip(
            *(flow(feature) for flow, feature in zip(self.fast_flow_blocks, embedding, strict=True)), strict=True
        )
        return self.loss(list(latents), list(log_jacobians))

    def score(self, embedding: list[torch.Tensor], image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,) and maps (B, 1, H, W) in [-1, 0]: minus the mean likelihood of the layers."""
        del image_size  # the model is built for one image size
        latents = [flow(feature)[0] for flow, feature in zip(self.fast_flow_blocks, embedding, strict=True)]
        maps = self.anomaly_map_generator(latents)
        return maps.amax(dim=(-3, -2, -1)), maps


class Fastflow(ScaledFeaturesDetector, AnomalibFastflow):
    """anomalib's FastFlow over any layers of any local backbone, at any image size, seeded, reloadable.

    Args:
        backbone: From `load_backbone`, a torch module, or a name whose weights are at hand. (Plain anomalib knows
            ResNet-18, Wide ResNet-50-2 and two transformers.)
        layers: Each gets a norm and a flow of its own.
        pre_trained: For a name: True looks for its weights locally. Ignored for a module.
        flow_steps: Length of each flow.
        conv3x3_only: 3x3 convolutions in every step; False takes 1x1 in every second one.
        hidden_ratio: Hidden channels of a step's network, as a share of its input channels.
        lr: Adam's learning rate.
        weight_decay: Adam's weight decay.
        scale_features: Standardise each channel of the features by the good training images (`FeatureScaling`).
        seed: Initialises the flows.

    Raises:
        OptionError: An option that cannot work.
        WeightsError: A layer whose weights are missing from the file.
    """

    model_name: ClassVar[str] = "fastflow"

    @takes_shared_arguments
    def __init__(
        self,
        backbone: str | nn.Module = "resnet18",
        layers: Sequence[str] = ("layer1", "layer2", "layer3"),
        pre_trained: bool = True,
        flow_steps: int = 8,
        conv3x3_only: bool = False,
        hidden_ratio: float = 1.0,
        lr: float = 1e-3,
        weight_decay: float = 1e-5,
        scale_features: bool = False,
        shared: SharedArguments = DEFAULTS,
    ) -> None:
        layers = check_layers("Fastflow", layers)
        check_integer("Fastflow", "flow_steps", flow_steps, low=1)
        check_range("Fastflow", "hidden_ratio", hidden_ratio, low=0, open_low=True)
        check_range("Fastflow", "lr", lr, low=0, open_low=True)
        check_range("Fastflow", "weight_decay", weight_decay, low=0)
        network = self.resolve_backbone(backbone, pre_trained, shared.seed)
        options = {
            "flow_steps": flow_steps,
            "conv3x3_only": conv3x3_only,
            "hidden_ratio": hidden_ratio,
        }
        self.set_up(
            super(AnomalibFastflow, self).__init__,
            options={"layers": layers, **options, "lr": lr, "weight_decay": weight_decay, **recorded(scale_features)},
            backbone=network,
            shared=shared,
        )
        input_size = self.preprocessing.input_size
        self.model = FastflowModel(
            network,
            layers,
            input_size,
            **options,  # type: ignore[arg-type]
            seed=shared.seed,
            scale_features=scale_features,
        )

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Return the loss of one training batch, the negative log-likelihood of its features."""
        del args, kwargs
        loss = self.model.fit(self.model.embed(self.model.features(batch.image)))
        self.log_losses(batch, train_loss=loss)
        return {"loss": loss}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over norms and flows."""
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return torch.optim.Adam(learning, lr=self.options["lr"], weight_decay=self.options["weight_decay"])


__all__ = ["Fastflow", "FastflowModel"]
