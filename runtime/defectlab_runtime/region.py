"""The region of every image that models see: a box, a mask of valid pixels, or both, as plain data."""

import base64
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Region:
    """The evaluated region of images, in pixels of the whole image.

    Attributes:
        box: Left, top, right, bottom of what is cut out; None is all.
        size: Height and width of the images that `mask` is of; None without one.
        sha256: Of the mask's bits.
        code: The mask itself, packed, compressed and in base64.
    """

    box: Box | None = None
    size: Size | None = None
    sha256: str | None = None
    code: str | None = field(default=None, compare=False, repr=False)  # compression differs between machines

    @classmethod
    def of(cls, box: Box | None, mask: NDArray[np.bool_] | None) -> "Region | None":
        """Return the region of a box and a mask (H, W), True for valid pixels; None if neither is given."""
        if box is None and mask is None:
            return None
        if mask is None:
            return cls(box)
        bits = np.packbits(mask).tobytes()
        height, width = mask.shape
        code = base64.b64encode(zlib.compress(bits, 9)).decode()
        return cls(box, (height, width), hashlib.sha256(bits).hexdigest(), code)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> "Region | None":
        """Build a region from the dictionary made by `to_dict`."""
        if data is None:
            return None
        fields: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in data.items()}
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Return the region as plain data, without empty fields."""
        given = {"box": self.box, "size": self.size, "sha256": self.sha256, "code": self.code}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items() if value}

    @cached_property
    def mask(self) -> NDArray[np.bool_] | None:
        """Mask (H, W) of the valid pixels; None if all pixels are valid."""
        if self.size is None or self.code is None:
            return None
        expected = (self.size[0] * self.size[1] + 7) // 8  # bytes; a bit more is asked for, never all that there may be
        unpacked = zlib.decompressobj().decompress(base64.b64decode(self.code), expected + 1)
        if len(unpacked) != expected:
            raise ValueError(f"the mask of the region has not the {expected} bytes of {self.size} pixels")
        bits = np.frombuffer(unpacked, dtype=np.uint8)
        return np.unpackbits(bits, count=self.size[0] * self.size[1]).view(np.bool_).reshape(self.size)

    def problem(self, image_size: Size) -> str | None:
        """Return why an image of this (height, width) cannot be cut to the region; None if it can."""
        height, width = image_size
        if self.size is not None and self.size != (height, width):
            return f"{width} x {height}, and the valid area is of images of {self.size[1]} x {self.size[0]}"
        if self.box is not None and (self.box[2] > width or self.box[3] > height):
            return f"{width} x {height}, and crop_area ends at {self.box[2]}, {self.box[3]}"
        return None

    def box_on(self, image_size: Size) -> Box:
        """Return left, top, right, bottom of the region's box on an image of this (height, width)."""
        return self.box or (0, 0, image_size[1], image_size[0])

    def cut_size(self, image_size: Size) -> Size:
        """Return height and width of the region that is cut out of an image."""
        left, top, right, bottom = self.box_on(image_size)
        return bottom - top, right - left

    def cut(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return the part of `pixels` (H, W, ...) inside the region's box, with 0 for pixels outside the mask."""
        left, top, right, bottom = self.box_on((pixels.shape[0], pixels.shape[1]))
        if self.mask is not None:
            pixels = pixels * self.mask.reshape(*self.mask.shape, *(1,) * (pixels.ndim - 2)).astype(pixels.dtype)
        return pixels[top:bottom, left:right]
