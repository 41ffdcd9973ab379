"""Training crops with a label at every position: cut, turned, scaled, patched into each other, re-coloured."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from defectlab.backbones.pretraining.images import SHEET, PretrainingImages
from defectlab.backbones.pretraining.synthetic_defects import FOREIGN, add_defects, by_cell, placed, uniform
from defectlab.data.transforms.imagenet import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Crops:
    """Normalised images (B, 3, S, S); sheets and defects on the grids of layer2 (B, S/8, S/8) and layer3 (/16)."""

    images: Tensor
    fine: Tensor
    coarse: Tensor
    fine_defects: Tensor
    coarse_defects: Tensor


def draw_crops(sheets: PretrainingImages, count: int, size: int, *, colour: float, draws: torch.Generator) -> Crops:
    """Return `count` augmented crops of `size` pixels (a multiple of 16); the generator's state decides all.

    `colour` is how strongly light, colours and sharpness change, 0 .. 1.
    """
    from_photographs = torch.rand(count, generator=draws) < 0.5
    photograph = torch.multinomial(sheets.share, count, replacement=True, generator=draws)
    procedural = torch.randint(sheets.photographs, len(sheets.images), (count,), generator=draws)
    chosen = torch.where(from_photographs, photograph, procedural)
    grid = _views(count, size, draws)
    images = F.grid_sample(sheets.images[chosen].float() / 255, grid, padding_mode="reflection", align_corners=False)
    # A label is looked up at its pixel: (B, 1, 4, 4) -> (B, S, S)
    cells = sheets.labels[chosen][:, None].float()
    labels = F.grid_sample(cells, grid, mode="nearest", padding_mode="border", align_corners=False)[:, 0].long()
    images = _recolour(images, colour, draws)
    images, labels, defects = add_defects(*_patched(images, labels, draws), draws)
    images = _degrade(images, colour, draws)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    fine, coarse = labels[:, 4::8, 4::8], labels[:, 8::16, 8::16]
    return Crops((images - mean) / std, fine, coarse, by_cell(defects, 8), by_cell(defects, 16))


def _views(count: int, size: int, draws: torch.Generator) -> Tensor:
    """Return sampling grids (B, S, S, 2): a window in the sheet, turned by up to 30 degrees, often mirrored."""
    side = torch.exp(uniform(-0.6, 0.75, (count,), draws)) * size
    side = side.clamp(max=0.9 * SHEET)
    half = side / SHEET
    angle = uniform(-0.52, 0.52, (count,), draws)
    aspect = torch.exp(uniform(-0.2, 0.2, (count,), draws))
    mirror = torch.where(torch.rand(count, generator=draws) < 0.5, -1.0, 1.0)
    centre = (1 - half)[:, None] * uniform(-1, 1, (count, 2), draws)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = half * mirror * torch.cos(angle) * aspect, -half * torch.sin(angle)
    matrix[:, 1, 0], matrix[:, 1, 1] = half * mirror * torch.sin(angle) * aspect, half * torch.cos(angle)
    matrix[:, :, 2] = centre
    return F.affine_grid(matrix, [count, 1, size, size], align_corners=False)


def _recolour(images: Tensor, strength: float, draws: torch.Generator) -> Tensor:
    """Change light, contrast, tint and saturation of each image; at full strength every fourth becomes grey."""
    count, k = len(images), strength
    grey = images.mean(1, keepdim=True)
    saturation = uniform(1 - 0.6 * k, 1 + 0.4 * k, (count, 1, 1, 1), draws)
    saturation[torch.rand(count, generator=draws) < 0.25 * k] = 0
    images = grey + saturation * (images - grey)
    mean = images.mean((1, 2, 3), keepdim=True)
    contrast = torch.exp(uniform(-0.5 * k, 0.5 * k, (count, 1, 1, 1), draws))
    images = mean + contrast * (images - mean) + uniform(-0.2 * k, 0.2 * k, (count, 1, 1, 1), draws)
    return images + uniform(-0.08 * k, 0.08 * k, (count, 3, 1, 1), draws)


def _patched(images: Tensor, labels: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Paste a turned ellipse or box of the next crop into two crops of three, with its labels; say where, as a defect.

    A network that must name what is at each position learns to keep a foreign patch apart from its surroundings.
    """
    count, size = len(images), images.shape[-1]
    u, v, radii = placed(count, size, -2.0, -0.3, draws)
    ellipse = (u / radii[0]) ** 2 + (v / radii[1]) ** 2 < 1
    box = (u.abs() < radii[0]) & (v.abs() < radii[1])
    inside = torch.where(torch.rand(count, 1, 1, generator=draws) < 0.5, ellipse, box)
    inside &= torch.rand(count, 1, 1, generator=draws) < 0.67
    return (
        torch.where(inside[:, None], images.roll(1, 0), images),
        torch.where(inside, labels.roll(1, 0), labels),
        inside.long() * FOREIGN,
    )


def _degrade(images: Tensor, strength: float, draws: torch.Generator) -> Tensor:
    """Blur half of the images a little, add noise to all, and cut off what is below black or above white."""
    count = len(images)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = strength * uniform(-1, 1, (count, 1, 1, 1), draws).clamp(min=0)
    images = images + share * (blurred - images)
    noise = uniform(0, 0.04, (count, 1, 1, 1), draws)
    return (images + noise * torch.randn(images.shape, generator=draws)).clamp(0, 1)
