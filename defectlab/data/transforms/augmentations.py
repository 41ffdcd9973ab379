"""Random augmentations of training images: flips, turns, moves, and changes of light, blur and noise."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import Sampler
from torchvision import tv_tensors
from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, RandomVerticalFlip, Transform
from torchvision.transforms.v2 import functional as tvf


def build_augmentations(strengths: Mapping[str, float]) -> Compose:
    """Return the transform for images (3, H, W) in [0, 1] and their masks; it draws from torch's global generator."""
    parts: list[Transform] = []
    if "hflip" in strengths:
        parts.append(RandomHorizontalFlip(strengths["hflip"]))
    if "vflip" in strengths:
        parts.append(RandomVerticalFlip(strengths["vflip"]))
    if "quarter_turns" in strengths:
        parts.append(QuarterTurns(strengths["quarter_turns"]))
    moves = {name: strengths[name] for name in ("rotate", "shift", "zoom") if name in strengths}
    if moves:
        parts.append(RandomMove(**moves))
    light = {name: strengths[name] for name in ("brightness", "contrast", "blur", "noise") if name in strengths}
    if light:
        parts.append(RandomLight(**light))
    return Compose(parts)


class QuarterTurns(Transform):
    """Rotate images and masks by 90, 180 or 270 degrees with probability `p`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Sample the parameters that an image and its mask share."""
        del flat_inputs
        turned = float(torch.rand(())) < self.p
        return {"turns": int(torch.randint(1, 4, ())) if turned else 0}

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Apply to one image or mask."""
        return tv_tensors.wrap(inpt.as_subclass(torch.Tensor).rot90(params["turns"], (-2, -1)).contiguous(), like=inpt)


class RandomMove(Transform):
    """Rotate by up to `rotate` degrees, shift by up to a share of the size, and zoom by up to a share.

    Areas outside the image are filled by reflection at its edge, since black corners would look like defects; in masks
    they are 0.
    """

    def __init__(self, rotate: float = 0.0, shift: float = 0.0, zoom: float = 0.0) -> None:
        super().__init__()
        self.rotate, self.shift, self.zoom = rotate, shift, zoom

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Sample the parameters that an image and its mask share."""
        del flat_inputs
        angle, down, along, scale = (2 * torch.rand(4) - 1).tolist()
        return {
            "angle": torch.deg2rad(torch.tensor(self.rotate * angle)),
            "shift": (2 * self.shift * along, 2 * self.shift * down),  # the image spans [-1, 1]
            "scale": 1 + self.zoom * scale,
        }

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Apply to one image (3, H, W) or mask (H, W)."""
        is_mask = isinstance(inpt, tv_tensors.Mask)
        pixels = inpt.as_subclass(torch.Tensor)
        flat = pixels.float().reshape(1, -1, *pixels.shape[-2:])
        height, width = pixels.shape[-2:]
        cos, sin = torch.cos(params["angle"]) * params["scale"], torch.sin(params["angle"]) * params["scale"]
        along, down = params["shift"]
        matrix = torch.stack([
            torch.stack([cos, -sin * height / width, torch.tensor(along)]),
            torch.stack([sin * width / height, cos, torch.tensor(down)]),
        ])  # fmt: skip
        grid = F.affine_grid(matrix[None].float(), list(flat.shape), align_corners=False)
        mode, outside = ("nearest", "zeros") if is_mask else ("bilinear", "reflection")
        moved = F.grid_sample(flat, grid, mode=mode, padding_mode=outside, align_corners=False)
        return tv_tensors.wrap(moved.reshape(pixels.shape).to(pixels.dtype), like=inpt)


class RandomLight(Transform):
    """Change brightness, contrast, blur and noise of images, and leave masks unchanged."""

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, blur: float = 0.0, noise: float = 0.0) -> None:
        super().__init__()
        self.brightness, self.contrast, self.blur, self.noise = brightness, contrast, blur, noise

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Apply to one image (3, H, W) in [0, 1]."""
        del params
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        factor, contrast, blur, noise = torch.rand(4).tolist()
        pixels = inpt.as_subclass(torch.Tensor)
        pixels = pixels * (1 + self.brightness * (2 * factor - 1))
        mean = pixels.mean()
        pixels = mean + (pixels - mean) * (1 + self.contrast * (2 * contrast - 1))
        if self.blur * blur > 0.1:
            size = 2 * round(3 * self.blur * blur) + 1
            if size // 2 < min(pixels.shape[-2:]):
                pixels = tvf.gaussian_blur(pixels, [size, size], [self.blur * blur] * 2)
        if self.noise:
            pixels = pixels + self.noise * noise * torch.randn(pixels.shape)
        return tv_tensors.wrap(pixels.clamp(0, 1), like=inpt)


class PassSampler(Sampler[int]):
    """Sampler that yields every image `passes` times in each epoch, in seeded orders.

    It yields places in an endless row of passes: `divmod(place, images)` is which pass it is since the training began,
    and which image. What is sampled for it then depends on neither worker nor batch.
    """

    def __init__(self, images: int, passes: int, generator: torch.Generator) -> None:
        self.images = images
        self.passes = passes
        self._generator = generator
        self.done = 0

    def __len__(self) -> int:
        return self.images * self.passes

    def __iter__(self) -> Iterator[int]:
        """Yield the positions of one epoch's samples in the sequence of all passes."""
        for _ in range(self.passes):
            order = torch.randperm(self.images, generator=self._generator)
            first = self.images * self.done
            self.done += 1
            yield from (first + order).tolist()
