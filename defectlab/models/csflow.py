"""CS-Flow: one normalising flow across three scales (Rudolph et al., 2022, arXiv:2110.02855)."""

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from anomalib.models.image.csflow.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.csflow.lightning_model import Csflow as AnomalibCsflow
from anomalib.models.image.csflow.loss import CsFlowLoss
from anomalib.models.image.csflow.torch_model import CrossScaleFlow, ParallelGlowCouplingLayer, ParallelPermute
from anomalib.models.image.csflow.torch_model import CsFlowModel as AnomalibCsFlowModel
from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
from torch import nn
from torch.nn import functional as F

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.token_networks import nearest_size
from defectlab.models.checks import check_layers
from defectlab.models.feature_scaling import ScaledFeaturesDetector, feature_scaling, recorded
from defectlab.models.model_parts import FourParts
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.utils.seeds import seeded
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import OptionError

logger = logging.getLogger(__name__)

SCALES = 3
SCALE_NAMES = tuple(f"scale{scale}" for scale in range(SCALES))


class _Flow(CrossScaleFlow):
    """anomalib's flow for any feature shapes; its own holds EfficientNet-B5's 304 channels at stride 32."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]], blocks: int, clamp: float, hidden: int) -> None:
        nn.Module.__init__(self)
        inputs = [InputNode(*shape, name=f"input{scale}") for scale, shape in enumerate(shapes)]
        nodes = list(inputs)
        outputs = [node.out0 for node in inputs]
        for block in range(blocks):
            permute = Node(outputs, ParallelPermute, {"seed": block}, name=f"permute_{block}")
            subnet = {"channels_hidden": hidden, "kernel_size": 3 if block < blocks - 1 else 5}
            coupling = Node(
                [permute.out0, permute.out1, permute.out2],
                ParallelGlowCouplingLayer,
                {"clamp": clamp, "subnet_args": subnet},
                name=f"fc1_{block}",
            )
            nodes += [permute, coupling]
            outputs = [coupling.out0, coupling.out1, coupling.out2]
        ends = [OutputNode([output], name=f"end{scale}") for scale, output in enumerate(outputs)]
        self.graph = GraphINN([*nodes, *ends])


class CsflowModel(FourParts, AnomalibCsFlowModel):
    """CS-Flow's features, embed, fit and score, built for one input size, over a layer of any backbone.

    State-dict keys of the flow are plain anomalib's. The flow needs sides that halve twice on the layer's grid: other
    images are resized to the next size up that has them, where anomalib fails.
    """

    feature_extractor: FeatureExtractor  # type: ignore[assignment]

    def __init__(
        self,
        backbone: Backbone,
        layer: str,
        input_size: tuple[int, int],
        *,
        cross_conv_hidden_channels: int,
        n_coupling_blocks: int,
        clamp: float,
        seed: int,
        scale_features: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.layer = layer
        self.feature_extractor = FeatureExtractor(backbone, [layer])
        self.working_size = self._working_size(input_size)
        shapes = [self.feature_extractor.feature_shapes(size)[layer] for size in self._sizes()]
        if any(big[1:] != (2 * small[1], 2 * small[2]) for big, small in pairwise(shapes)):
            raise OptionError(f"Csflow: layer '{layer}' does not halve with the image ({shapes}): take another layer.")
        self.scaling = feature_scaling(
            {name: shape[0] for name, shape in zip(SCALE_NAMES, shapes, strict=True)}, scale_features
        )
        with seeded(seed, "csflow flow"):
            self.graph = _Flow(shapes, n_coupling_blocks, clamp, cross_conv_hidden_channels)
        self.anomaly_map_generator = AnomalyMapGenerator(input_dims=(3, *input_size))
        self.loss = CsFlowLoss()

    def _working_size(self, input_size: tuple[int, int]) -> tuple[int, int]:
        probe, width = nearest_size(self.feature_extractor.feature_extractor, (512, 512))
        _, rows, _ = self.feature_extractor.feature_shapes((probe, width))[self.layer]
        step = round(probe / rows) * 2 ** (SCALES - 1)
        height, width = (-(-side // step) * step for side in input_size)
        if (height, width) != input_size:
            logger.info("Csflow: images of %s are resized to %s, whose sides halve twice", input_size, (height, width))
        return height, width

    def _sizes(self) -> list[tuple[int, int]]:
        return [(self.working_size[0] // 2**scale, self.working_size[1] // 2**scale) for scale in range(SCALES)]

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (B, 3, H, W) to the layer's features (B, C, h, w) of the image, its half and its quarter."""
        if tuple(images.shape[-2:]) != self.working_size:
            images = F.interpolate(images, size=self.working_size, mode="bilinear", antialias=True)
        sizes = zip(SCALE_NAMES, self._sizes(), strict=True)
        scaled = {name: images if name == "scale0" else F.interpolate(images, size=size) for name, size in sizes}
        return {name: self.feature_extractor(image)[self.layer] for name, image in scaled.items()}

    def embed(self, features: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Return the scales' features, largest first."""
        scaled = self.scaling(features)
        return [scaled[name] for name in SCALE_NAMES]

    def fit(self, embedding: list[torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch.

        As in anomalib and the authors' code the log-determinants of a batch are summed, so its size weighs them.
        """
        return self.loss(*self.graph(embedding))

    def score(self, embedding: list[torch.Tensor], image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,), the latents' mean square, and maps (B, 1, H, W), the product of the scales'."""
        del image_size  # the model is built for one image size
        latents, _ = self.graph(embedding)
        return self._compute_anomaly_scores(latents), self.anomaly_map_generator(latents)


class Csflow(ScaledFeaturesDetector, AnomalibCsflow):
    """anomalib's CS-Flow with local weights, over any backbone and layer, at any image size, seeded, reloadable.

    Args:
        backbone: From `load_backbone`, a torch module, or a name whose weights are at hand. The paper's and anomalib's
            is EfficientNet-B5 with ImageNet weights (`defectlab weights get efficientnet_b5`).
        layers: The one layer whose features are modelled, as a list.
        pre_trained: For a name: True looks for its weights locally. Ignored for a module.
        cross_conv_hidden_channels: Hidden channels of the convolutions across scales.
        n_coupling_blocks: Length of the flow.
        clamp: Limit of the affine couplings.
        num_channels: 3.
        lr: Adam's learning rate.
        eps: Adam's epsilon.
        weight_decay: Adam's weight decay.
        scale_features: Standardise each channel of the features by the good training images,
            at each of the three scales (`FeatureScaling`).
        seed: Initialises the flow.

    Raises:
        OptionError: An option that cannot work.
        WeightsError: A layer whose weights are missing from the file.
    """

    model_name: ClassVar[str] = "csflow"

    @takes_shared_arguments
    def __init__(
        self,
        backbone: str | nn.Module = "efficientnet_b5",
        layers: Sequence[str] = ("features.6.8",),
        pre_trained: bool = True,
        cross_conv_hidden_channels: int = 1024,
        n_coupling_blocks: int = 4,
        clamp: float = 3,
        num_channels: int = 3,
        lr: float = 2e-4,
        eps: float = 1e-4,
        weight_decay: float = 1e-5,
        scale_features: bool = False,
        shared: SharedArguments = DEFAULTS,
    ) -> None:
        layers = check_layers("Csflow", layers)
        if len(layers) != 1:
            raise OptionError(f"Csflow: layers must name one layer, got {', '.join(layers)}.")
        check_integer("Csflow", "cross_conv_hidden_channels", cross_conv_hidden_channels, low=1)
        check_integer("Csflow", "n_coupling_blocks", n_coupling_blocks, low=1)
        check_range("Csflow", "clamp", clamp, low=0, open_low=True)
        for name, value in (("lr", lr), ("eps", eps)):
            check_range("Csflow", name, value, low=0, open_low=True)
        check_range("Csflow", "weight_decay", weight_decay, low=0)
        if num_channels != 3:
            raise OptionError(f"Csflow: num_channels must be 3: images are read as RGB; got {num_channels!r}.")
        network = self.resolve_backbone(backbone, pre_trained, shared.seed)
        options = {
            "cross_conv_hidden_channels": cross_conv_hidden_channels,
            "n_coupling_blocks": n_coupling_blocks,
            "clamp": clamp,
        }
        self.set_up(
            super(AnomalibCsflow, self).__init__,
            options={"layers": layers, **options, "lr": lr, "eps": eps, "weight_decay": weight_decay}
            | recorded(scale_features),
            backbone=network,
            shared=shared,
        )
        input_size = self.preprocessing.input_size
        self.model = CsflowModel(
            network,
            layers[0],
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
        """Return Adam over the flow."""
        return torch.optim.Adam(
            self.model.graph.parameters(),
            lr=self.options["lr"],
            eps=self.options["eps"],
            weight_decay=self.options["weight_decay"],
            betas=(0.5, 0.9),
        )


__all__ = ["Csflow", "CsflowModel"]
