"""What the recipe of the project's own backbone is chosen on: five sets that neither the table nor training uses.

    python -m benchmarks.backbone_choice a.safetensors b.safetensors     # random and, where at hand, ImageNet beside

Each set is a photograph of scikit-image (none is trained on): 24 crops to learn from, 24 good ones and 40 with a
painted defect to test, all slightly turned, shifted and lit differently. The detector is a PatchCore with 2,000
random patches of layers 2 and 3, which needs seconds. The figures say which weights are better, not how good they are.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from defectlab import load_backbone
from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from defectlab.data.samples.photographs import photograph_file
from defectlab.evaluation.metrics import auroc, sort_scores

Picture = np.ndarray  # (H, W, 3) float32, 0 .. 1
Draws = np.random.Generator

SIDE = 224
PHOTOGRAPHS = {
    "motorcycle": "motorcycle_left.png",
    "moon": "moon.png",
    "page": "page.png",
    "brick": "brick.png",
    "anywhere": "motorcycle_right.png",
}
FOREIGN = ("grass.png", "coffee.png", "chelsea.png")
SMALL = 0.008  # share of the image below which a defect counts as small


@dataclass(frozen=True)
class Trial:
    """Crops to learn from and to test (lists of pictures), masks (n, 224, 224) of the latter."""

    train: list[Picture]
    test: list[Picture]
    masks: np.ndarray


def photograph(name: str) -> Picture:
    """Read a photograph of scikit-image."""
    with Image.open(photograph_file("coins").parent / name) as image:
        rgb = image.convert("RGB")
    return np.asarray(rgb.resize((576, 288)) if name == "page.png" else rgb, dtype=np.float32) / 255


def make_trial(name: str, seed: int) -> Trial:
    """Make one set; the same seed, the same pixels."""
    draws, whole = np.random.default_rng(seed), photograph(PHOTOGRAPHS[name])
    others = [photograph(file) for file in FOREIGN]
    train = [_crop(draws, whole, centred=name == "motorcycle") for _ in range(24)]
    good = [_crop(draws, whole, centred=name == "motorcycle") for _ in range(24)]
    spoiled = [_defect(draws, _crop(draws, whole, centred=name == "motorcycle"), others) for _ in range(40)]
    masks = np.stack([np.zeros((SIDE, SIDE), dtype=bool)] * len(good) + [mask for _, mask in spoiled])
    return Trial(train, good + [picture for picture, _ in spoiled], masks)


def _crop(draws: Draws, whole: Picture, *, centred: bool) -> Picture:
    height, width = whole.shape[:2]
    large = int(SIDE * 1.15)
    if centred:
        top = height // 2 - large // 2 + draws.integers(-6, 7)
        left = width // 2 - large // 2 + draws.integers(-6, 7)
    else:
        top, left = draws.integers(0, height - large + 1), draws.integers(0, width - large + 1)
    window = Image.fromarray((whole[top : top + large, left : left + large] * 255).astype(np.uint8))
    turned = window.rotate(draws.uniform(-4, 4), resample=Image.Resampling.BICUBIC)
    edge = (large - SIDE) // 2
    picture = np.asarray(turned.crop((edge, edge, edge + SIDE, edge + SIDE)), dtype=np.float32) / 255
    lit = picture * draws.uniform(0.92, 1.08) + draws.normal(0, 0.01, picture.shape)
    return np.clip(lit, 0, 1).astype(np.float32)


def _blob(draws: Draws, area: float) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = np.sqrt(area / np.pi)
    cy, cx = draws.uniform(0.12 * SIDE, 0.88 * SIDE, 2)
    angle, stretch = draws.uniform(0, np.pi), np.exp(draws.uniform(-0.7, 0.7))
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    around = np.arctan2(v, u)
    edge = 1 + 0.25 * np.sin(3 * around + draws.uniform(0, 6)) + 0.15 * np.sin(5 * around + draws.uniform(0, 6))
    return np.hypot(u / stretch, v * stretch) < radius * edge


def _defect(draws: Draws, picture: Picture, others: list[Picture]) -> tuple[Picture, np.ndarray]:
    """Paint one of six defects: a turned piece, a foreign piece, a scratch, a smear, a stain, a dent."""
    kind, spoiled = draws.integers(6), picture.copy()
    area = np.exp(draws.uniform(np.log(60), np.log(2500)))
    mask = _blob(draws, area)
    if kind == 0:
        spoiled[mask] = np.rot90(picture, 1)[mask]
    elif kind == 1:
        other = others[draws.integers(len(others))]
        top, left = (draws.integers(0, extent - SIDE + 1) for extent in other.shape[:2])
        piece = other[top : top + SIDE, left : left + SIDE]
        spoiled[mask] = ((piece - piece.mean()) * 0.8 + picture.mean())[mask]
    elif kind == 2:
        mask = _scratch(draws)
        spoiled[mask] = np.clip(spoiled[mask] + draws.choice([-0.35, 0.35]), 0, 1)
    elif kind == 3:
        spoiled[mask] = _smeared(picture)[mask]
    elif kind == 4:
        spoiled[mask] = np.clip(spoiled[mask] * draws.uniform(0.5, 1.0, 3), 0, 1)
    else:
        spoiled, mask = _dented(picture, mask, np.sqrt(area / np.pi) + 3)
    return np.clip(spoiled, 0, 1).astype(np.float32), mask


def _scratch(draws: Draws) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    cy, cx = draws.uniform(0.2 * SIDE, 0.8 * SIDE, 2)
    angle = draws.uniform(0, np.pi)
    reach, width = np.exp(draws.uniform(2.3, 4.2)), draws.uniform(1, 2.5)
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle) + 0.004 * u * u
    return (np.abs(u) < reach) & (np.abs(v) < width)


def _smeared(picture: Picture) -> Picture:
    padded = F.pad(torch.from_numpy(picture).permute(2, 0, 1)[None], (4, 4, 4, 4), mode="reflect")
    return F.avg_pool2d(padded, 9, 1)[0].permute(1, 2, 0).numpy()


def _dented(picture: Picture, mask: np.ndarray, radius: float) -> tuple[Picture, np.ndarray]:
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    cy, cx = [axis.mean() for axis in np.nonzero(mask)] if mask.any() else [SIDE / 2, SIDE / 2]
    distance = np.hypot(y - cy, x - cx)
    pull = np.where(distance < radius, distance / radius, 1)
    grid = np.stack([(cx + (x - cx) * pull), (cy + (y - cy) * pull)], axis=-1) / SIDE * 2 - 1
    image, where = torch.from_numpy(picture).permute(2, 0, 1)[None], torch.from_numpy(grid).float()[None]
    warped = F.grid_sample(image, where, padding_mode="reflection", align_corners=False)
    return warped[0].permute(1, 2, 0).numpy(), distance < radius


@torch.no_grad()
def measure(trial: Trial, backbone: Backbone) -> tuple[float, float, float]:
    """Return AUROC of images, of pixels, and of pixels in good images and those with a small defect."""
    extractor = FeatureExtractor(backbone, ["layer2", "layer3"])
    train, test = _embedded(trial.train, extractor), _embedded(trial.test, extractor)
    width = train.shape[1]
    rows = train.permute(0, 2, 3, 1).reshape(-1, width)
    bank = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:2000]]
    distances = torch.stack(
        [torch.cdist(one.permute(1, 2, 0).reshape(-1, width), bank).amin(1).reshape(one.shape[1:]) for one in test]
    )
    maps = gaussian_blur(F.interpolate(distances[:, None], (SIDE, SIDE), mode="bilinear"), [25, 25], [4.0, 4.0])[:, 0]
    few = trial.masks.mean((1, 2)) < SMALL
    seen = np.s_[:, ::2, ::2]
    figures = [
        auroc(sort_scores(distances.flatten(1).amax(1).numpy(), trial.masks.any((1, 2)).astype(int))),
        auroc(sort_scores(maps.numpy()[seen], trial.masks[seen])),
        auroc(sort_scores(maps.numpy()[few][seen], trial.masks[few][seen])),
    ]
    image, pixel, small = (figure.value or 0.0 for figure in figures)  # both classes are there: never None
    return image, pixel, small


def _embedded(pictures: list[Picture], extractor: Callable[[Tensor], dict[str, Tensor]]) -> Tensor:
    """Return the patches (n, C2 + C3, h, w) of layers 2 and 3, as PatchCore joins them."""
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    parts = []
    for part in ((images - mean) / std).split(8):
        found = extractor(part)
        fine, coarse = (F.avg_pool2d(found[layer], 3, 1, 1) for layer in ("layer2", "layer3"))
        parts.append(torch.cat([fine, F.interpolate(coarse, fine.shape[-2:], mode="bilinear")], 1))
    return torch.cat(parts)


def main() -> None:
    """Measure weights files, random weights and, with DEFECTLAB_REAL, ImageNet's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="weights files of defectlab_resnet18")
    files = parser.parse_args().files
    backbones = {"random": load_backbone("resnet18", weights="random")}
    real = os.environ.get("DEFECTLAB_REAL")
    if real:
        backbones["ImageNet"] = load_backbone("resnet18", weights=Path(real) / "weights" / "resnet18.pth")
    backbones |= {file.stem: load_backbone("defectlab_resnet18", weights=file) for file in files}
    trials = {name: make_trial(name, 100 + index) for index, name in enumerate(PHOTOGRAPHS)}
    for weights, backbone in backbones.items():
        figures = np.array([measure(trial, backbone) for trial in trials.values()])
        each = "  ".join(f"{n} {i:.3f}/{p:.3f}/{s:.3f}" for n, (i, p, s) in zip(trials, figures, strict=True))
        mean = "/".join(f"{value:.4f}" for value in figures.mean(0))
        print(f"{weights}: {each}  mean {mean} (image/pixel/small AUROC)", flush=True)


if __name__ == "__main__":
    main()
