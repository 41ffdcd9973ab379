"""EfficientAD's torch model: teacher, student and autoencoder (Batzner et al., 2024, arXiv:2303.14535)."""

from collections.abc import Sequence
from typing import Any

import torch
from anomalib.models.image.efficient_ad.torch_model import AutoEncoder
from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel as AnomalibEfficientAdModel
from torch import nn
from torch.nn import functional as F

from defectlab.models.efficient_ad.teacher import patch_description_network
from defectlab.models.model_parts import FourParts
from defectlab.utils.seeds import seeded

NO_PADDING = (0, 0, 0, 0)
MAP_NAMES = {"st": "student and teacher", "ae": "student and autoencoder"}  # by the ends of the quantiles' names
MIN_RANGE = 0.01  # between a map's quantiles, in squared normalised deviations: the square of a tenth of one


class EfficientAdModel(FourParts, AnomalibEfficientAdModel):
    """EfficientAD's features, embed, fit and score. State-dict keys are plain anomalib's."""

    def __init__(
        self,
        *,
        teacher_out_channels: int,
        model_size: str,
        padding: bool,
        pad_maps: bool,
        seed: int,
        pre_padding: Sequence[int] = NO_PADDING,
    ) -> None:
        nn.Module.__init__(self)
        self.pad_maps = pad_maps
        self.pre_padding = tuple(pre_padding)
        self.teacher_out_channels = teacher_out_channels
        shape: dict[str, Any] = {"padding": padding, "seed": seed}
        self.teacher = patch_description_network(model_size, teacher_out_channels, purpose="teacher", **shape).eval()
        self.teacher.requires_grad_(False)
        self.student = patch_description_network(model_size, 2 * teacher_out_channels, purpose="student", **shape)
        with seeded(seed, "efficient_ad autoencoder"):
            self.ae = AutoEncoder(out_channels=teacher_out_channels, padding=padding)
        zeros = {name: torch.zeros(1, teacher_out_channels, 1, 1) for name in ("mean", "std")}
        self.mean_std = nn.ParameterDict(zeros)
        self.quantiles = nn.ParameterDict({name: torch.tensor(0.0) for name in ("qa_st", "qb_st", "qa_ae", "qb_ae")})
        for values in (self.mean_std, self.quantiles):
            values.requires_grad_(False)

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (B, 3, H, W) to the outputs of teacher (normalised), student and autoencoder."""
        images = self.padded(images)
        return {
            "teacher": self._normalize_teacher(self.teacher(images)),
            "student": self.student(images),
            "autoencoder": self.ae(images, images.shape[-2:]),
        }

    def embed(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean squared distances of the student to teacher and to autoencoder, (B, 1, h, w) each."""
        student = features["student"]
        half = self.teacher_out_channels
        local = (features["teacher"] - student[:, :half]) ** 2
        remote = (features["autoencoder"] - student[:, half:]) ** 2
        return local.mean(dim=1, keepdim=True), remote.mean(dim=1, keepdim=True)

    def fit(self, images: torch.Tensor, general: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the losses of student, autoencoder, and student against autoencoder."""
        images = self.padded(images)
        _, distance = self.compute_student_teacher_distance(images)
        return self.compute_losses(images, general, distance)

    def score(
        self, embedding: tuple[torch.Tensor, torch.Tensor], image_size: tuple[int, int], normalize: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,) and maps (B, 1, H, W): the mean of both distances, each on its own scale."""
        local, remote = (self.sized(distance, image_size) for distance in embedding)
        if normalize and self.is_set(self.quantiles):
            q = self.quantiles
            local = 0.1 * (local - q["qa_st"]) / (q["qb_st"] - q["qa_st"])
            remote = 0.1 * (remote - q["qa_ae"]) / (q["qb_ae"] - q["qa_ae"])
        maps = 0.5 * local + 0.5 * remote
        return maps.amax(dim=(-3, -2, -1)), maps

    def padded(self, images: torch.Tensor) -> torch.Tensor:
        """Pad images (B, 3, H, W) with black by the widths of `pre_padding`: (B, 3, H + top + bottom, W + ...)."""
        return F.pad(images, self.pre_padding) if any(self.pre_padding) else images

    def sized(self, distance: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
        """Resize distances (B, 1, h, w) to the image's size, with `pre_padding` cropped away: (B, 1, H, W)."""
        maps = F.pad(distance, (4, 4, 4, 4)) if self.pad_maps else distance
        left, right, top, bottom = self.pre_padding
        height, width = image_size
        maps = F.interpolate(maps, size=(height + top + bottom, width + left + right), mode="bilinear")
        return maps[..., top : top + height, left : left + width]
