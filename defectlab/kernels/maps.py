"""Conversion of patch scores to a smooth anomaly map: upsampling and Gaussian blur as one separable linear map."""

import functools
from typing import Literal

import torch
from torch.nn import functional as F

from defectlab_runtime.errors import InputError, OptionError

Mode = Literal["bilinear", "nearest"]


def smooth_upsample(
    scores: torch.Tensor, size: tuple[int, int], *, sigma: float = 4, mode: Mode = "bilinear"
) -> torch.Tensor:
    """Upsample patch scores (B, 1, h, w) to `size` (H, W), then blur; returns (B, 1, H, W).

    `bilinear` (corners not aligned) is PaDiM's way, `nearest` PatchCore's. The blur is anomalib's: a kernel of
    2*int(4*sigma + 0.5) + 1 pixels with reflected borders. Both steps are linear and separable, so a map is A @ S @ B.T
    with one small matrix an axis, kept between calls. Differentiable in the scores.

    Raises:
        InputError: If a side of `size` is no longer than the reflected border (anomalib fails there too).
        OptionError: If `sigma` is not above 0 or the mode is unknown.
    """
    if mode not in ("bilinear", "nearest"):
        raise OptionError(f"smooth_upsample: mode must be 'bilinear' or 'nearest', got {mode!r}.")
    if not sigma > 0:
        raise OptionError(f"smooth_upsample: sigma must be above 0 pixels, got {sigma!r}.")
    border = border_size(sigma)
    if min(size) <= border:
        raise InputError(
            f"An anomaly map of {size[0]} x {size[1]} pixels is too small for a blur of sigma {sigma:g}: "
            f"each side must have at least {border + 1} pixels. Use larger images (image_size)."
        )
    down = _matrix(scores.shape[-2], int(size[0]), float(sigma), mode, scores.device, scores.dtype)  # (H, h)
    across = _matrix(scores.shape[-1], int(size[1]), float(sigma), mode, scores.device, scores.dtype)  # (W, w)
    return down @ (scores @ across.T)  # (B, 1, h, w) -> (B, 1, h, W) -> (B, 1, H, W)


def border_size(sigma: float) -> int:
    """Return how many pixels the blur of a given sigma reaches to each side.

    >>> border_size(4)
    16
    """
    return int(4.0 * sigma + 0.5)


@functools.lru_cache(maxsize=64)
def _matrix(
    size_in: int, size_out: int, sigma: float, mode: Mode, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Return the matrix (size_out, size_in) that upsamples and blurs along one axis: blur @ upsample."""
    # A tensor made under inference mode could not be used in training later.
    with torch.inference_mode(False), torch.no_grad():
        # Interpolating the unit vectors gives the very weights that interpolating a map uses, in float32 as there.
        unit = torch.eye(size_in, dtype=torch.float32).reshape(size_in, 1, size_in, 1)
        corners = False if mode == "bilinear" else None
        upsample = F.interpolate(unit, size=(size_out, 1), mode=mode, align_corners=corners)
        upsample = upsample.reshape(size_in, size_out).T.double()  # (size_in, 1, size_out, 1) -> (size_out, size_in)
        return (_blur(size_out, sigma) @ upsample).to(device=device, dtype=dtype)


def _blur(size: int, sigma: float) -> torch.Tensor:
    """Return the float64 matrix (size, size) of a Gaussian blur, borders reflected without repeating the edge."""
    border = border_size(sigma)
    offsets = torch.arange(-border, border + 1)
    weights = torch.exp(-offsets.double().square() / (2 * sigma**2))
    weights /= weights.sum()
    source = (torch.arange(size).unsqueeze(1) + offsets).abs()  # (size, 2*border + 1), reflected at the near edge
    source = (size - 1) - (size - 1 - source).abs()  # and at the far edge
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, source, weights.expand(size, -1))
