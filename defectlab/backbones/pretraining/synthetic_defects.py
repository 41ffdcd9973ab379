"""Defects put into training crops, and a label at every position that names them.

A network that must tell a patched-in piece, a scratch or a stain from its surroundings keeps what a detector needs.
After CutPaste (Li et al., 2021, arXiv:2104.04015), with a label for every position instead of one for the image.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from defectlab.backbones.pretraining.images import NO_LABEL

DEFECTS = ("none", "foreign piece", "turned piece", "scratch", "stain", "smear", "hole")
FOREIGN, SCRATCH = 1, 3
SHARE = 0.12  # of a cell that a defect must cover to name it; cells with less have no label


def uniform(low: float, high: float, shape: tuple[int, ...], draws: torch.Generator) -> Tensor:
    """Draw from low .. high."""
    return low + (high - low) * torch.rand(shape, generator=draws)


def placed(count: int, size: int, low: float, high: float, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Place a turned frame in each crop: coordinates u, v (count, size, size) of it, and its radii (2, count, 1, 1).

    Radii are exp(low .. high); all lengths are halves of the crop's side.
    """
    line = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(line, line, indexing="ij")
    centre, angle = uniform(-0.8, 0.8, (2, count, 1, 1), draws), uniform(0, 3.1416, (count, 1, 1), draws)
    radii = torch.exp(uniform(low, high, (2, count, 1, 1), draws))
    u, v = x - centre[0], y - centre[1]
    return u * torch.cos(angle) + v * torch.sin(angle), v * torch.cos(angle) - u * torch.sin(angle), radii


def add_defects(
    images: Tensor, labels: Tensor, defects: Tensor, draws: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Give three crops of five a defect of their own.

    Args:
        images: (B, 3, S, S), 0 .. 1.
        labels: (B, S, S), the sheet at each pixel; removed where a defect is put.
        defects: (B, S, S), the index in `DEFECTS` of what is there already.
        draws: Decides everything.
    """
    count, _, size, _ = images.shape
    defect = torch.randint(FOREIGN + 1, len(DEFECTS), (count, 1, 1), generator=draws)
    defect[torch.rand(count, 1, 1, generator=draws) < 0.4] = 0
    u, v, radii = placed(count, size, -2.2, -0.7, draws)
    lobes = 1 + 0.3 * torch.sin(3 * torch.atan2(v / radii[1], u / radii[0]) + uniform(0, 6.3, (count, 1, 1), draws))
    blob = (u / radii[0]) ** 2 + (v / radii[1]) ** 2 < lobes**2
    bend, width = uniform(-0.3, 0.3, (count, 1, 1), draws), uniform(1.0, 3.5, (count, 1, 1), draws) / size
    reach = torch.exp(uniform(-1.5, 0.0, (count, 1, 1), draws))
    scratch = ((v + bend * u**2).abs() < width) & (u.abs() < reach)
    inside = torch.where(defect == SCRATCH, scratch, blob) & (defect > 0)
    step = uniform(-0.45, 0.45, (count, 1, 1, 1), draws)
    tint = 1 + uniform(-0.5, 0.3, (count, 3, 1, 1), draws)
    smear = F.avg_pool2d(F.pad(images, (3, 3, 3, 3), mode="replicate"), 7, 1)
    flat = torch.rand(count, 3, 1, 1, generator=draws).expand_as(images) * 0.9 + 0.1 * images
    # in the order of DEFECTS: (7, B, 3, S, S)
    looks = torch.stack(
        [images, images, images.flip(3).mT, images + step + 0.1 * step.sign(), images * tint, smear, flat]
    )
    spoiled = torch.where(inside[:, None], looks[defect.flatten(), torch.arange(count)], images)
    return spoiled, labels.masked_fill(inside, NO_LABEL), torch.where(inside, defect, defects)


def by_cell(defects: Tensor, side: int) -> Tensor:
    """Return the defect that covers most of each cell of `side` pixels: (B, S, S) -> (B, S / side, S / side).

    A cell that a defect only touches has no label.
    """
    share = F.avg_pool2d(F.one_hot(defects, len(DEFECTS)).permute(0, 3, 1, 2).float(), side)
    most, which = share[:, 1:].max(1)
    found = torch.where(most > SHARE, which + 1, NO_LABEL)
    return found.masked_fill(share[:, 0] > 0.999, 0)
