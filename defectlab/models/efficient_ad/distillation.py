"""Distillation of a teacher for EfficientAD from any backbone: a small network learns the backbone's patch features.

As in the paper (arXiv:2303.14535, appendix): features of two layers at twice the image size, brought to the teacher's
channels and normalised, squared error, Adam. Simpler than there: one pooling over channels instead of PatchCore's two.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tvf

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.recognition import as_backbone
from defectlab.backbones.registry import usual_layers
from defectlab.backbones.state_dicts import write_safetensors
from defectlab.data.auxiliary_images import find_auxiliary_images
from defectlab.data.datasets import load_image
from defectlab.models.efficient_ad.teacher import check_size, patch_description_network
from defectlab.utils import paths
from defectlab.utils.progress import progress_bar
from defectlab.utils.seeds import generator
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

STATISTICS_OF = 64  # images whose features give the channels' mean and standard deviation
GREY_SHARE = 0.1


def distil_teacher(
    backbone: Backbone | torch.nn.Module,
    *,
    model_size: str = "small",
    teacher_out_channels: int = 384,
    layers: Sequence[str] | None = None,
    images: str | Path | None = None,
    image_size: int = 256,
    steps: int = 2000,
    batch_size: int = 8,
    lr: float = 1e-4,
    weight_decay: float = 1e-5,
    seed: int = 42,
    output: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
) -> Path:
    """Train a teacher and write it where `EfficientAd` looks for it; returns the file.

    Args:
        backbone: Whose features it learns, from `load_backbone`.
        model_size: tiny, small or medium, as EfficientAd's.
        teacher_out_channels: As EfficientAd's.
        layers: Of the backbone; None is a ResNet's layer2 and layer3, or those of the same strides. The teacher's grid
            is a quarter of the image.
        images: Folder of images to learn on, at any depth; None is the generated set.
        image_size: What the teacher sees, square; the backbone sees twice that.
        steps: Optimiser steps. The paper takes 60 000 with batches of 16.
        batch_size: Images a step.
        lr: Adam's learning rate.
        weight_decay: Adam's weight decay.
        seed: Initialises the teacher and draws the images.
        output: File to write; None is pretrained_teacher_SIZE.safetensors in weights/.
        overwrite: Replace a file that is there.
        device: "auto" takes the GPU where there is one.

    Raises:
        OptionError: An option that cannot work.
        DataError: There are no images.
        InputError: The file is there already.
    """
    size = check_size(model_size)
    for name, value in (("teacher_out_channels", teacher_out_channels), ("steps", steps), ("batch_size", batch_size)):
        check_integer("distil_teacher", name, value, low=1)
    check_integer("distil_teacher", "image_size", image_size, low=64)
    check_range("distil_teacher", "lr", lr, low=0, open_low=True)
    check_range("distil_teacher", "weight_decay", weight_decay, low=0)
    target = paths.resolve(output or f"weights/pretrained_teacher_{size}.safetensors")
    if target.exists() and not overwrite:
        raise InputError(f"{target} is there already. Give output=..., or overwrite=True.")
    network = as_backbone(backbone)
    layers = layers or usual_layers(network.spec, ("layer2", "layer3"))
    source = find_auxiliary_images(
        images,
        option="distil_teacher: images",
        fetch="Fetch some photographs of anything.",
        loses="the teacher learns from formulas then, not from photographs of things",
    )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = patch_description_network(size, teacher_out_channels, padding=True, seed=seed, purpose="distillation")
    targets = _Targets(network, layers, teacher_out_channels, image_size).to(device)
    losses = _train(
        teacher.to(device),
        targets,
        _Batches(source.files(), image_size, batch_size, seed, device),
        steps,
        torch.optim.Adam(teacher.parameters(), lr=lr, weight_decay=weight_decay),
    )
    facts: dict[str, Any] = {
        "made_by": "defectlab distil_teacher",
        "backbone": network.spec.name,
        "backbone_weights": network.weights.source,
        "backbone_sha256": network.weights.sha256,
        "layers": ",".join(layers),
        "images": source.summary,
        "image_size": image_size,
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "loss": f"{losses[-1]:.4f}",
    }
    state = {key: value.cpu().contiguous() for key, value in teacher.state_dict().items()}
    write_safetensors(state, target, {key: str(value) for key, value in facts.items()})
    logger.info(
        "Teacher '%s' of %s on %s: loss %s, in %s", size, facts["backbone"], source.summary, facts["loss"], target
    )
    return target


class _Targets(torch.nn.Module):
    """Maps images (B, 3, 2S, 2S) in [0, 1] to normalised targets (B, C, S / 4, S / 4)."""

    mean: torch.Tensor
    std: torch.Tensor
    image_mean: torch.Tensor
    image_std: torch.Tensor

    def __init__(self, backbone: Backbone, layers: Sequence[str], channels: int, image_size: int) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(backbone, layers)
        self.channels = channels
        self.grid = -(-image_size // 4)
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        for name, values in (("image_mean", backbone.spec.mean), ("image_std", backbone.spec.std)):
            self.register_buffer(name, torch.tensor(values)[None, :, None, None])

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.extractor((images - self.image_mean) / self.image_std).values()
        sized = [F.adaptive_avg_pool2d(f, self.grid) if f.shape[-1] > self.grid else self._up(f) for f in features]
        joined = torch.cat(sized, dim=1).permute(0, 2, 3, 1)  # (B, D, g, g) -> (B, g, g, D)
        pooled = F.adaptive_avg_pool1d(joined.flatten(1, 2), self.channels)  # (B, g*g, D) -> (B, g*g, C)
        maps = pooled.transpose(1, 2).unflatten(2, (self.grid, self.grid))  # (B, g*g, C) -> (B, C, g, g)
        return (maps - self.mean) / self.std

    def _up(self, features: torch.Tensor) -> torch.Tensor:
        return F.interpolate(features, size=(self.grid, self.grid), mode="bilinear")

    @torch.no_grad()
    def measure(self, batches: Sequence[torch.Tensor]) -> None:
        """Compute and set mean and standard deviation of each channel."""
        values = torch.cat([self(batch) for batch in batches]).transpose(0, 1).flatten(1)  # (N, C, g, g) -> (C, N*g*g)
        self.mean.copy_(values.mean(dim=1)[None, :, None, None])
        self.std.copy_(values.std(dim=1).clamp_min(1e-6)[None, :, None, None])


class _Batches:
    """Random batches of images at twice the size, (B, 3, 2S, 2S), drawn by the seed alone."""

    def __init__(self, files: Sequence[Path], image_size: int, batch_size: int, seed: int, device: str) -> None:
        self.files, self.size, self.batch_size, self.device = files, 2 * image_size, batch_size, device
        self.draws = generator(seed, "distillation images")

    def draw(self) -> torch.Tensor:
        chosen = torch.randint(len(self.files), (self.batch_size,), generator=self.draws).tolist()
        return torch.stack([self._image(self.files[index]) for index in chosen]).to(self.device)

    def _image(self, path: Path) -> torch.Tensor:
        image = tvf.resize(load_image(path), [self.size, self.size], antialias=True)
        grey = float(torch.rand(1, generator=self.draws)) < GREY_SHARE
        return torch.as_tensor(tvf.rgb_to_grayscale(image, num_output_channels=3) if grey else image)


def _train(
    teacher: torch.nn.Module,
    targets: _Targets,
    batches: _Batches,
    steps: int,
    optimizer: torch.optim.Optimizer,
) -> list[float]:
    """Train the teacher and return the loss of each step."""
    targets.measure([batches.draw() for _ in range(-(-STATISTICS_OF // batches.batch_size))])
    losses: list[float] = []
    teacher.train()
    with progress_bar("Teacher", steps) as progress:
        for step in range(1, steps + 1):
            images = batches.draw()
            small = F.interpolate(images, size=batches.size // 2, mode="bilinear", antialias=True)
            loss = F.mse_loss(teacher(small), targets(images))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            progress(step, steps)
            if step == 1 or step % max(1, steps // 10) == 0:
                logger.info("Teacher: step %d of %d, loss %.4f", step, steps, losses[-1])
    return losses


__all__ = ["distil_teacher"]
