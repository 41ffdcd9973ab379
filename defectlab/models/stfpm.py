"""STFPM: a student learns the teacher's features on good images (Wang et al., 2021, arXiv:2103.04257)."""

import copy
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from anomalib.models.image.stfpm.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.stfpm.lightning_model import Stfpm as AnomalibStfpm
from anomalib.models.image.stfpm.loss import STFPMLoss
from anomalib.models.image.stfpm.torch_model import STFPMModel as AnomalibStfpmModel
from torch import nn

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.registry import build
from defectlab.models.base import BaseDetector
from defectlab.models.checks import check_layers
from defectlab.models.model_parts import FourParts
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.utils.seeds import seeded, stream_seed
from defectlab.utils.validation import check_range
from defectlab_runtime.errors import OptionError

logger = logging.getLogger(__name__)

Pair = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]


class StudentExtractor(FeatureExtractor):
    """A `FeatureExtractor` that learns: gradients, and batch norm in train mode while training."""

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        super().__init__(network, layers)
        self.requires_grad_(True)

    def train(self, mode: bool = True) -> "StudentExtractor":
        """Set training or eval mode of all modules, where a frozen `FeatureExtractor` would stay in eval mode."""
        nn.Module.train(self, mode)
        return self

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {layer: (B, C, h, w)} for images (B, 3, H, W), layers in the user's order."""
        return self.read(images)


class StfpmModel(FourParts, AnomalibStfpmModel):
    """STFPM's features, embed, fit and score. State-dict keys are plain anomalib's."""

    teacher_model: FeatureExtractor  # type: ignore[assignment]
    student_model: StudentExtractor  # type: ignore[assignment]

    def __init__(self, backbone: Backbone, layers: Sequence[str], seed: int) -> None:
        nn.Module.__init__(self)
        self.tiler = None
        self.backbone = backbone.spec.architecture
        self.layers = list(layers)
        self.teacher_model = FeatureExtractor(backbone, layers)
        self.student_model = StudentExtractor(untrained(backbone, seed), layers)
        self.anomaly_map_generator = AnomalyMapGenerator()
        self.loss = STFPMLoss()

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (B, 3, H, W) to the teacher's features (B, C, h, w) of each layer and the student's.

        Keys are `teacher.LAYER` and `student.LAYER`.
        """
        both = {"teacher": self.teacher_model(images), "student": self.student_model(images)}
        return {f"{who}.{layer}": feature for who, features in both.items() for layer, feature in features.items()}

    def embed(self, features: dict[str, torch.Tensor]) -> Pair:
        """Return the teacher's features by layer, and the student's."""
        teacher = {layer: features[f"teacher.{layer}"] for layer in self.layers}
        return teacher, {layer: features[f"student.{layer}"] for layer in self.layers}

    def fit(self, embedding: Pair) -> torch.Tensor:
        """Return the loss of a batch: squared distances of the normalised features, summed over images."""
        return self.loss(*embedding)

    def score(self, embedding: Pair, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,) and maps (B, 1, H, W): the product of the layers' upsampled distances."""
        teacher, student = embedding
        maps = self.anomaly_map_generator.compute_anomaly_map(teacher, student, image_size)
        return maps.amax(dim=(-3, -2, -1)), maps


class Stfpm(BaseDetector, AnomalibStfpm):
    """anomalib's STFPM with any local backbone as teacher, a seeded student, a checkpoint that reloads.

    Args:
        backbone: The teacher: from `load_backbone`, a torch module, or a name whose weights are at hand. The student
            is the same architecture, untrained.
        layers: Where the student follows the teacher.
        pre_trained: For a name: True looks for its weights locally. Ignored for a module.
        lr: SGD's learning rate.
        momentum: SGD's momentum.
        weight_decay: SGD's weight decay; the paper's is 1e-4, anomalib's ten times that.
        seed: Initialises the student.

    Raises:
        OptionError: An option that cannot work.
        WeightsError: A layer whose weights are missing from the file.
    """

    model_name: ClassVar[str] = "stfpm"

    @takes_shared_arguments
    def __init__(
        self,
        backbone: str | nn.Module = "resnet18",
        layers: Sequence[str] = ("layer1", "layer2", "layer3"),
        pre_trained: bool = True,
        lr: float = 0.4,
        momentum: float = 0.9,
        weight_decay: float = 1e-3,
        shared: SharedArguments = DEFAULTS,
    ) -> None:
        layers = check_layers("Stfpm", layers)
        check_range("Stfpm", "lr", lr, low=0, open_low=True)
        check_range("Stfpm", "momentum", momentum, low=0, high=1)
        check_range("Stfpm", "weight_decay", weight_decay, low=0)
        network = self.resolve_backbone(backbone, pre_trained, shared.seed)
        model = StfpmModel(network, layers, shared.seed)
        self.set_up(
            super(AnomalibStfpm, self).__init__,
            options={"layers": layers, "lr": lr, "momentum": momentum, "weight_decay": weight_decay},
            backbone=network,
            shared=shared,
        )
        self.model = model

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Return the loss of the student against the teacher on one training batch."""
        del args, kwargs
        loss = self.model.fit(self.model.embed(self.model.features(batch.image)))
        self.log_losses(batch, train_loss=loss / len(batch.image))
        return {"loss": loss}

    def image_losses(self, batch: Any) -> torch.Tensor:
        """Return the means (B,) of the maps: the validation error by which STFPM's authors choose the best epoch."""
        return batch.anomaly_map.flatten(1).mean(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD over the student alone."""
        return torch.optim.SGD(
            self.model.student_model.parameters(),
            lr=self.options["lr"],
            momentum=self.options["momentum"],
            weight_decay=self.options["weight_decay"],
        )


def untrained(backbone: Backbone, seed: int) -> nn.Module:
    """Return the backbone's architecture with fresh weights.

    Raises:
        OptionError: A module of unknown code, some of whose parts cannot be initialised anew.
    """
    if backbone.spec.library != "unknown":
        return build(backbone.spec, seed=stream_seed(seed, "stfpm student"))
    network = copy.deepcopy(backbone.network)
    with seeded(seed, "stfpm student"):
        for name, module in network.named_modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif any(True for _ in module.parameters(recurse=False)):
                raise OptionError(
                    f"Stfpm: the student cannot be made of this backbone: its part '{name or type(module).__name__}' "
                    "has parameters but no reset_parameters(). Give it one, or take a backbone by name."
                )
    return network


__all__ = ["Stfpm", "StfpmModel"]
