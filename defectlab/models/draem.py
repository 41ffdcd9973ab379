"""DRAEM: networks that repair and segment simulated defects (Zavrtanik et al., 2021, arXiv:2108.07610)."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from anomalib.models.image.draem.lightning_model import Draem as AnomalibDraem
from anomalib.models.image.draem.loss import DraemLoss
from anomalib.models.image.draem.torch_model import DiscriminativeSubNetwork, ReconstructiveSubNetwork
from anomalib.models.image.draem.torch_model import DraemModel as AnomalibDraemModel
from torch import nn
from torch.nn import functional as F

from defectlab.data.auxiliary_images import AuxiliaryImages, find_auxiliary_images
from defectlab.models.base import BaseDetector
from defectlab.models.checks import check_unnormalised
from defectlab.models.model_parts import FourParts
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.utils.seeds import seeded
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import OptionError

logger = logging.getLogger(__name__)

STRIDE = 32  # five poolings; other sizes are padded to it
TEXTURES = (".png", ".jpg", ".jpeg")  # file types that anomalib's generator reads


class DraemModel(FourParts, AnomalibDraemModel):
    """DRAEM's features, embed, fit and score. State-dict keys are plain anomalib's."""

    def __init__(self, *, sspcab: bool, reconstructive_width: int, discriminative_width: int, seed: int) -> None:
        nn.Module.__init__(self)
        with seeded(seed, "draem networks"):
            self.reconstructive_subnetwork = ReconstructiveSubNetwork(base_width=reconstructive_width, sspcab=sspcab)
            self.discriminative_subnetwork = DiscriminativeSubNetwork(
                in_channels=6, out_channels=2, base_width=discriminative_width
            )
        self.loss = DraemLoss()

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (B, 3, H, W) to the images themselves and their defect-free reconstructions, (B, 3, H, W) each."""
        return {"image": images, "reconstruction": _padded(self.reconstructive_subnetwork, images)}

    def embed(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Concatenate image and reconstruction along channels: (B, 6, H, W)."""
        return torch.cat([features["image"], features["reconstruction"]], dim=1)

    def fit(self, images: torch.Tensor, augmented: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch: `augmented` (B, 3, H, W) are `images` with defects at `masks` (B, 1, H, W)."""
        features = self.features(augmented)
        logits = _padded(self.discriminative_subnetwork, self.embed(features))
        return self.loss(images, features["reconstruction"], masks, logits)

    def score(self, embedding: torch.Tensor, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,) and maps (B, 1, H, W) in [0, 1]: how sure a pixel is defective."""
        del image_size  # the embedding has it
        logits = _padded(self.discriminative_subnetwork, embedding)
        maps = torch.softmax(logits, dim=1)[:, 1:]
        return maps.amax(dim=(-3, -2, -1)), maps


def _padded(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Run a network that halves and doubles its input five times on images (B, C, H, W) of any size."""
    height, width = images.shape[-2:]
    below, right = -height % STRIDE, -width % STRIDE
    if not below and not right:
        return network(images)
    return network(F.pad(images, (0, right, 0, below), mode="replicate"))[..., :height, :width]


class Draem(BaseDetector, AnomalibDraem):
    """anomalib's DRAEM with textures from a local folder or generated ones, at any image size, seeded, reloadable.

    It has no backbone; images stay in [0, 1]. Anomalib's 97 million weights need a GPU: the widths make it smaller.

    Args:
        dtd_dir: Folder of PNG or JPEG textures to spoil good images with, at any depth, such as the Describable
            Textures Dataset. None: a set of generated surfaces, made once under data/generated. Used in training only.
        enable_sspcab: A self-supervised block in the reconstruction's encoder (arXiv:2111.09099).
        sspcab_lambda: Weight of its loss.
        beta: How opaque a simulated defect is: a number, or (least, most).
        lr: Adam's learning rate; a tenth after 400 epochs and again after 600.
        reconstructive_width: Channels of the first level of the network that repairs.
        discriminative_width: Channels of the first level of the network that finds.
        seed: Initialises the networks.

    Raises:
        OptionError: An option that cannot work.
    """

    model_name: ClassVar[str] = "draem"

    @takes_shared_arguments
    def __init__(
        self,
        dtd_dir: str | Path | None = None,
        enable_sspcab: bool = False,
        sspcab_lambda: float = 0.1,
        beta: float | Sequence[float] = (0.1, 1.0),
        lr: float = 1e-4,
        reconstructive_width: int = 128,
        discriminative_width: int = 64,
        shared: SharedArguments = DEFAULTS,
    ) -> None:
        check_range("Draem", "lr", lr, low=0, open_low=True)
        check_range("Draem", "sspcab_lambda", sspcab_lambda, low=0)
        check_integer("Draem", "reconstructive_width", reconstructive_width, low=1)
        check_integer("Draem", "discriminative_width", discriminative_width, low=1)
        options = {
            "dtd_dir": None if dtd_dir is None else str(dtd_dir),
            "enable_sspcab": enable_sspcab,
            "sspcab_lambda": sspcab_lambda,
            "beta": _checked_beta(beta),
            "lr": lr,
            "reconstructive_width": reconstructive_width,
            "discriminative_width": discriminative_width,
        }
        self.set_up(super(AnomalibDraem, self).__init__, options=options, shared=shared)
        check_unnormalised("Draem", self.preprocessing)
        if min(self.preprocessing.input_size) < STRIDE:
            raise OptionError(
                f"Draem: the model's input of {self.preprocessing.input_size} is too small: at least {STRIDE} pixels."
            )
        self.model = DraemModel(
            sspcab=enable_sspcab,
            reconstructive_width=reconstructive_width,
            discriminative_width=discriminative_width,
            seed=shared.seed,
        )
        self.sspcab = enable_sspcab
        if enable_sspcab:
            self.sspcab_activations: dict[str, torch.Tensor] = {}
            self.setup_sspcab()

    def check_training(self, datamodule: Any) -> None:
        """Find the textures and add them to the `sources` of the record.

        Raises:
            DataError: There are none at `dtd_dir`.
        """
        super().check_training(datamodule)
        self._textures: AuxiliaryImages = find_auxiliary_images(
            self.options["dtd_dir"],
            option="Draem: dtd_dir",
            fetch="Fetch the Describable Textures Dataset, which the published figures were made with "
            "(https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz), and unpack it there.",
            loses="simulated defects look like formulas then, not like photographs of textures",
            extensions=TEXTURES,
        )
        self.sources = {"textures": self._textures.summary}

    def on_train_start(self) -> None:
        """Set up the generator of simulated defects."""
        beta = self.options["beta"]
        blend = float(beta) if isinstance(beta, int | float) else (float(beta[0]), float(beta[1]))
        with seeded(self.seed, "draem defects"):
            self.augmenter = PerlinAnomalyGenerator(blend_factor=blend)
        files = self._textures.files()
        self.augmenter.anomaly_source_paths = [file for file in files if file.suffix.lower() in TEXTURES]

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Return the loss of one training batch with simulated defects.

        The defects are drawn on the CPU, whose generator the engine seeds.
        """
        del args, kwargs
        augmented, masks = self.augmenter(batch.image.cpu())
        loss = self.model.fit(batch.image, augmented.to(self.device), masks.to(self.device))
        if self.sspcab:
            before, after = self.sspcab_activations["input"], self.sspcab_activations["output"]
            loss = loss + self.options["sspcab_lambda"] * F.mse_loss(before, after)
        self.log_losses(batch, train_loss=loss)
        return {"loss": loss}

    def configure_optimizers(self) -> Any:
        """Return Adam over both networks, and its schedule."""
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.options["lr"])
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[400, 600], gamma=0.1)]


def _checked_beta(beta: float | Sequence[float]) -> float | list[float]:
    numbers = [beta] if isinstance(beta, int | float) else list(beta)
    for number in numbers:
        check_range("Draem", "beta", number, low=0, high=1)
    if len(numbers) > 2 or numbers != sorted(numbers) or not numbers:
        raise OptionError(f"Draem: beta must be a number in [0, 1] or (least, most), got {beta!r}.")
    return numbers[0] if isinstance(beta, int | float) or len(numbers) == 1 else numbers


__all__ = ["Draem", "DraemModel"]
