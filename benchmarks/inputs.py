"""What the benchmarks run on: bottle where DEFECTLAB_REAL has it, else images made up in its place."""

import os
from functools import cache
from pathlib import Path

import torch

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.loading import load_backbone
from defectlab.data.datasets import load_image
from defectlab.data.transforms.preprocessing import Preprocessing


def real() -> Path | None:
    """The folder of real images and weights."""
    path = os.environ.get("DEFECTLAB_REAL")
    return Path(path) if path and (Path(path) / "mvtec_bottle_512").is_dir() else None


def source() -> str:
    """Words for where the images come from."""
    return "bottle, 256 px" if real() else "made-up images, 256 px"


@cache
def resnet18() -> Backbone:
    """ResNet-18 with ImageNet weights where they are at hand, else with random ones."""
    folder = real()
    if folder and (folder / "weights" / "resnet18.pth").is_file():
        return load_backbone("resnet18", weights=str(folder / "weights" / "resnet18.pth"))
    return load_backbone("resnet18", weights="random")


@cache
def images(count: int, size: int = 256) -> torch.Tensor:
    """`count` normalised training images (count, 3, size, size)."""
    folder = real()
    if folder is None:
        drawn = torch.rand(count, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.interpolate(drawn, size=(size, size), mode="bilinear")
    preprocessing = Preprocessing(size=(size, size))
    resize, transform = preprocessing.resize(), preprocessing.transform()
    files = sorted((folder / "mvtec_bottle_512" / "train" / "good").glob("*"))
    chosen = [files[number % len(files)] for number in range(count)]
    return torch.stack([transform(resize(load_image(file))).as_subclass(torch.Tensor) for file in chosen])
