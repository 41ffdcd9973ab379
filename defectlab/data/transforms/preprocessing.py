"""Preprocessing of images to a model's input, and resampling of maps back to the image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize, Transform
from torchvision.transforms.v2 import functional as tvf

from defectlab.data.transforms.mask_reduction import reduce_mask
from defectlab.kernels.tiles import TileGrid
from defectlab_runtime.errors import OptionError
from defectlab_runtime.geometry import fitted_box
from defectlab_runtime.preprocessing import PreprocessingSettings, check_region
from defectlab_runtime.region import Region


class Preprocessing(PreprocessingSettings):
    """Resize, optional centre crop, normalisation, as torch transforms; see `PreprocessingSettings`."""

    @property
    def grid(self) -> TileGrid | None:
        """The grid of tile positions; None if images are not tiled."""
        return None if self.tiling is None else TileGrid.of(self.tiling.image_size, self.size, self.tiling.overlap)

    def resize(self, mask_reduction: str = "area") -> Transform:
        """Return the transform that cuts out the region and resizes images of any size, applied before batching.

        Masks are brought to the size by `mask_reduction`, "area" or "nearest" (`reduce_mask`).
        """
        sized = self.sized(mask_reduction)
        return Compose([*self.region_crop(), sized]) if self.region else sized

    def region_crop(self) -> list[Transform]:
        """Return the transforms that cut out the region: one `RegionCrop`, or none if there is no region."""
        return [] if self.region is None else [RegionCrop(self.region)]

    def sized(self, mask_reduction: str = "area") -> Transform:
        """Return the transform that resizes images of any size to `whole_size`, after the region is cut out."""
        mode = InterpolationMode(self.interpolation)
        if self.keep_aspect:
            return Letterbox(self.whole_size, mode, tuple(self.mean), mask_reduction)
        return MaskedResize(self.whole_size, mode, mask_reduction)

    def transform(self) -> Compose:
        """Return the transform for (..., 3, H, W) images in [0, 1] and their masks, without the region's crop.

        It holds what anomalib can write into a checkpoint, so masks that have not been resized are by torchvision's
        nearest here.
        """
        mode = InterpolationMode(self.interpolation)
        resize = self.sized() if self.keep_aspect else Resize(self.whole_size, interpolation=mode, antialias=True)
        crop = [CenterCrop(self.crop)] if self.crop else []
        return Compose([resize, *crop, Normalize(mean=list(self.mean), std=list(self.std))])

    @classmethod
    def from_transform(cls, transform: Transform | None) -> "Preprocessing":
        """Read the settings back from a Resize, CenterCrop, Normalize sequence.

        Raises:
            OptionError: The transform has other parts, whose effect on maps and masks could not be undone.
        """
        if transform is None:
            raise OptionError("The pre-processor has no transform; give it a Resize and a Normalize.")
        parts = list(transform.transforms) if isinstance(transform, Compose) else [transform]
        fields: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        for part in parts:
            if isinstance(part, Letterbox):
                fields |= {"size": part.size, "keep_aspect": True, "interpolation": part.interpolation.value}
            elif isinstance(part, Resize) and isinstance(part.size, Sequence) and len(part.size) == 2:
                fields |= {"size": tuple(part.size), "interpolation": InterpolationMode(part.interpolation).value}
            elif isinstance(part, CenterCrop):
                fields["crop"] = tuple(part.size)
            elif isinstance(part, Normalize):
                fields |= {"mean": tuple(part.mean), "std": tuple(part.std)}
            else:
                raise OptionError(
                    f"The pre-processor contains {part}. Allowed are Resize((h, w)), CenterCrop and Normalize; "
                    "put augmentations into Folder(train_augmentations=...)."
                )
        if "size" not in fields:
            raise OptionError("The pre-processor has no Resize((height, width)); images of many sizes need one.")
        return cls(**fields)

    def to_image(self, maps: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
        """Resample maps on the model's input to the image by torch's bilinear resampling.

        Args:
            maps: (B, h, w) values on the model's input.
            image_size: Height and width of the image.

        Returns:
            (B, H, W) on the CPU. What a centre crop cut away, or lies outside the region, was never seen by the model
            and is NaN.
        """
        on_image = (self.frame.to_image(one, image_size, resize=_resize) for one in maps.cpu().numpy())
        return torch.from_numpy(np.stack(list(on_image)))


class RegionCrop(Transform):
    """Cut a region out of images (..., C, H, W) and masks (..., H, W), with pixels outside its mask set to 0.

    Raises:
        DataError: An image of another size than the region is of.
    """

    def __init__(self, region: Region) -> None:
        super().__init__()
        self.region = region

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Apply the crop to one image or mask."""
        del params
        size = (inpt.shape[-2], inpt.shape[-1])
        check_region(self.region, size)
        left, top, right, bottom = self.region.box_on(size)
        pixels = inpt.as_subclass(torch.Tensor)
        if self.region.mask is not None:
            pixels = pixels * torch.from_numpy(self.region.mask).to(pixels)
        return tv_tensors.wrap(pixels[..., top:bottom, left:right].contiguous(), like=inpt)


class MaskedResize(Resize):
    """torchvision's antialiased `Resize` to (height, width), with masks brought to that size by `reduce_mask`."""

    def __init__(self, size: tuple[int, int], interpolation: InterpolationMode, mask_reduction: str = "area") -> None:
        super().__init__(size, interpolation=interpolation, antialias=True)
        self.mask_reduction = mask_reduction

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Resize one image (..., C, H, W) or mask (..., H, W)."""
        if _is_mask(inpt):
            return reduce_mask_tensor(inpt, (self.size[0], self.size[1]), self.mask_reduction)
        return super().transform(inpt, params)


def reduce_mask_tensor(mask: torch.Tensor, size: tuple[int, int], method: str) -> torch.Tensor:
    """Bring a mask (..., H, W) to a size by `reduce_mask`, with 1 where it is marked and the type it has."""
    if tuple(mask.shape[-2:]) == size:
        return mask
    flat = mask.as_subclass(torch.Tensor).cpu().numpy().reshape(-1, *mask.shape[-2:]) > 0
    reduced = np.stack([reduce_mask(one, size, method) for one in flat])
    tensor = torch.from_numpy(reduced).to(mask.dtype).reshape(*mask.shape[:-2], *size).to(mask.device)
    return tv_tensors.wrap(tensor, like=mask)


class Letterbox(Transform):
    """Scale to fit into `size`, centred, the rest filled with `fill` (images) or 0 (masks; see `reduce_mask`)."""

    def __init__(
        self,
        size: tuple[int, int],
        interpolation: InterpolationMode,
        fill: tuple[float, ...] = (0.0, 0.0, 0.0),
        mask_reduction: str = "area",
    ) -> None:
        super().__init__()
        self.size = size
        self.interpolation = interpolation
        self.fill = fill
        self.mask_reduction = mask_reduction

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Apply to one image (..., C, H, W) or mask; what already has the size is returned unchanged."""
        del params
        image_size = (inpt.shape[-2], inpt.shape[-1])
        if image_size == self.size:
            return inpt
        top, left, bottom, right = fitted_box(image_size, self.size)
        padding = [left, top, self.size[1] - right, self.size[0] - bottom]
        if _is_mask(inpt):
            return tvf.pad(reduce_mask_tensor(inpt, (bottom - top, right - left), self.mask_reduction), padding)
        fitted = tvf.resize(inpt, [bottom - top, right - left], interpolation=self.interpolation, antialias=True)
        return tvf.pad(fitted, padding, fill=list(self.fill))


def _resize(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize (h, w) to (H, W), bilinear."""
    if values.shape == tuple(size):
        return values
    batch = torch.from_numpy(np.ascontiguousarray(values))[None, None]  # (h, w) -> (1, 1, h, w)
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()


def _is_mask(inpt: torch.Tensor) -> bool:
    return type(inpt).__name__ == "Mask"
