"""Encoders and decoders of the three variational autoencoders. Images are (B, 3, H, W) in [0, 1], of any one size."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

HIDDEN = (4096, 2048, 512)
SMALL_CHANNELS = (32, 64, 128)
BIG_CHANNELS = (64, 128, 256, 512)
POOLS = 3
DROPOUT = 0.25


class Encoder(nn.Module):
    """Images to mean and logarithm of the variance of the latent posterior, (B, latent_dim) each."""

    def __init__(self, body: nn.Module, width: int, latent_dim: int) -> None:
        super().__init__()
        self.body = body
        self.mean = nn.Linear(width, latent_dim)
        self.log_variance = nn.Linear(width, latent_dim)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map images (B, 3, H, W) to mean and log variance, (B, latent_dim) each."""
        hidden = self.body(images)  # (B, width)
        return self.mean(hidden), self.log_variance(hidden)


class LinearDecoder(nn.Module):
    """Latent vectors to images, by fully connected layers."""

    def __init__(self, body: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.body = body
        self.size = size

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Map (B, latent_dim) to images (B, 3, H, W) in (0, 1)."""
        return self.body(latent).reshape(-1, 3, *self.size)  # (B, 3*H*W) -> (B, 3, H, W)


class ConvDecoder(nn.Module):
    """Latent vectors to images, by transposed convolutions that each double the size."""

    def __init__(self, latent_dim: int, channels: int, body: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.grid = (channels, *pooled(size))
        self.expand = nn.Linear(latent_dim, math.prod(self.grid))
        self.body = body
        self.size = size

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Map (B, latent_dim) to images (B, 3, H, W) in (0, 1)."""
        grid = self.expand(latent).reshape(-1, *self.grid)  # (B, C*h*w) -> (B, C, h, w)
        images: torch.Tensor = self.body(grid)
        return images[..., : self.size[0], : self.size[1]]  # sizes that are no multiple of 8 were rounded up


def pooled(size: tuple[int, int], times: int = POOLS) -> tuple[int, int]:
    """Return height and width after so many halvings that round up.

    >>> pooled((40, 72)), pooled((41, 33))
    ((5, 9), (6, 5))
    """
    height, width = size
    return -(-height // 2**times), -(-width // 2**times)


def linear_networks(
    size: tuple[int, int], latent_dim: int, hidden: Sequence[int] = HIDDEN
) -> tuple[Encoder, LinearDecoder]:
    """Fully connected, 3*H*W - hidden - latent_dim and mirrored; batch norm, Hardswish, dropout on both sides."""
    pixels = 3 * size[0] * size[1]
    widths = (pixels, *hidden, latent_dim)
    down: list[nn.Module] = [nn.Flatten()]
    for place, (before, after) in enumerate(itertools.pairwise(widths)):
        down += _dense(before, after)
        down += [nn.Dropout(DROPOUT)] if place == 1 else []
    widths = (latent_dim, latent_dim, *reversed(hidden))
    up: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        up += _dense(before, after)
    up += [nn.Dropout(DROPOUT), nn.Linear(widths[-1], pixels), nn.Sigmoid()]
    return Encoder(nn.Sequential(*down), latent_dim, latent_dim), LinearDecoder(nn.Sequential(*up), size)


def small_networks(
    size: tuple[int, int], latent_dim: int, channels: Sequence[int] = SMALL_CHANNELS
) -> tuple[Encoder, ConvDecoder]:
    """Three convolutions, each halved after; the decoder is transposed convolutions alone."""
    encoder = _conv_encoder(size, latent_dim, channels)
    up = _doublings((*reversed(channels), 3))
    return encoder, ConvDecoder(latent_dim, channels[-1], nn.Sequential(*up), size)


def big_networks(
    size: tuple[int, int], latent_dim: int, channels: Sequence[int] = BIG_CHANNELS
) -> tuple[Encoder, ConvDecoder]:
    """Four convolutions, the first three halved after; the decoder begins with a convolution."""
    encoder = _conv_encoder(size, latent_dim, channels)
    up = [*_convolution(channels[-1], channels[-2], norm=True), *_doublings((*reversed(channels[:-1]), 3))]
    return encoder, ConvDecoder(latent_dim, channels[-1], nn.Sequential(*up), size)


def _conv_encoder(size: tuple[int, int], latent_dim: int, channels: Sequence[int]) -> Encoder:
    down: list[nn.Module] = []
    for place, (before, after) in enumerate(zip((3, *channels), channels, strict=False)):
        down += _convolution(before, after, norm=place > 0)
        down += [nn.MaxPool2d(2, ceil_mode=True)] if place < POOLS else []
    return Encoder(nn.Sequential(*down, nn.Flatten()), channels[-1] * math.prod(pooled(size)), latent_dim)


def _dense(before: int, after: int) -> list[nn.Module]:
    return [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.Hardswish()]


def _convolution(before: int, after: int, *, norm: bool) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, padding=1),
        *([nn.BatchNorm2d(after)] if norm else []),
        nn.Hardswish(),
    ]


def _doublings(channels: Sequence[int]) -> list[nn.Module]:
    """Transposed convolutions through `channels`, the last one to a sigmoid."""
    steps: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        steps += [nn.ConvTranspose2d(before, after, 2, stride=2), nn.Hardswish()]
    return [*steps[:-1], nn.Sigmoid()]
