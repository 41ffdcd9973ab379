"""Inverse geometry of the preprocessing, from a model's input back to the image. Does not use torch."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectlab_runtime.region import Region

Size = tuple[int, int]
Slices = tuple[slice, slice]  # rows, columns
Bounds = tuple[float, float, float, float]  # left, top, right, bottom
T = TypeVar("T", bound=np.generic)
Resize = Callable[[NDArray[np.float32], Size], NDArray[np.float32]]

ROUNDING = 1e-6  # pixels; a product that is a whole number but for rounding is that number


@dataclass(frozen=True)
class Frame:
    """The position of the model's input, or of all its tiles, on the image: the inverse of the preprocessing.

    `size` and `crop` are (height, width). The image is cut to `region` first, brought to `size`, and cut to `crop`.
    """

    size: Size
    crop: Size | None = None
    keep_aspect: bool = False
    region: Region | None = None

    @classmethod
    def from_record(cls, preprocessing: Mapping[str, Any]) -> "Frame":
        """Return the frame described by the `preprocessing` of a run's record."""
        tiling = preprocessing.get("tiling")
        height, width = tiling["image_size"] if tiling else preprocessing["size"]
        crop = preprocessing.get("crop")
        crop = (crop[0], crop[1]) if crop else None
        region = Region.from_dict(preprocessing.get("area"))
        return cls((height, width), crop, bool(preprocessing.get("keep_aspect")), region)

    def to_region(
        self,
        anomaly_map: NDArray[np.float32],
        region_size: Size,
        grid: Size,
        *,
        unseen: float,
        resize: Resize | None = None,
    ) -> NDArray[np.float32]:
        """Resample a map (h, w) on the model's input to a grid (H, W) over the image's region.

        Args:
            anomaly_map: Values on the model's input.
            region_size: Height and width of the region in pixels of the image; of the image, where it has no region.
            grid: Height and width of what is returned.
            unseen: Value where a centre crop cut the image away.
            resize: How values are resampled; default is `resize_bilinear`.
        """
        seen = None
        if self.crop:
            padding = crop_padding(self.size, self.crop)
            anomaly_map = np.pad(anomaly_map, padding, mode="edge")
            seen = np.pad(np.ones(self.crop, dtype=np.bool_), padding)
        if self.keep_aspect:
            top, left, bottom, right = fitted_box(region_size, self.size)
            anomaly_map = anomaly_map[top:bottom, left:right]
            seen = None if seen is None else seen[top:bottom, left:right]
        resized = (resize or resize_bilinear)(anomaly_map, grid)
        return resized if seen is None else np.where(resize_nearest(seen, grid), resized, np.float32(unseen))

    def place(self, region_size: Size) -> tuple[Size, Slices, Slices]:
        """Return how a region of the image, of this (height, width), lies on the model's input.

        Returns:
            Height and width that the region is resized to; the part of it that the input shows; and where that part
            lies on the input, which may show padding around it.
        """
        box = fitted_box(region_size, self.size) if self.keep_aspect else (0, 0, *self.size)
        (cut_top, _), (cut_left, _) = crop_padding(self.size, self.crop or self.size)
        rows = _overlap(box[0] - cut_top, box[2] - cut_top, (self.crop or self.size)[0])
        columns = _overlap(box[1] - cut_left, box[3] - cut_left, (self.crop or self.size)[1])
        return (box[2] - box[0], box[3] - box[1]), (rows[0], columns[0]), (rows[1], columns[1])

    def to_image(
        self, anomaly_map: NDArray[np.float32], image_size: Size, *, resize: Resize | None = None
    ) -> NDArray[np.float32]:
        """Resample a map (h, w) on the model's input to the whole image (H, W), with NaN in unseen areas."""
        size = image_size if self.region is None else self.region.cut_size(image_size)
        on_region = self.to_region(anomaly_map, size, size, unseen=np.nan, resize=resize)
        if self.region is None:
            return on_region
        left, top, right, bottom = self.region.box_on(image_size)
        whole = np.full(image_size, np.nan, dtype=np.float32)
        whole[top:bottom, left:right] = on_region
        return whole if self.region.mask is None else np.where(self.region.mask, whole, np.float32(np.nan))

    def box_to_image(self, box: Bounds, image_size: Size) -> tuple[int, int, int, int]:
        """Convert a box in pixels of the model's input to pixels of the image.

        Returns:
            The smallest box of whole pixels of the image around it; without extent where the input shows padding only.
        """
        over, above, _, _ = (0, 0, 0, 0) if self.region is None else self.region.box_on(image_size)
        height, width = image_size if self.region is None else self.region.cut_size(image_size)
        (cut_top, _), (cut_left, _) = crop_padding(self.size, self.crop or self.size)
        fitted = fitted_box((height, width), self.size) if self.keep_aspect else (0, 0, *self.size)
        scale_y, scale_x = height / (fitted[2] - fitted[0]), width / (fitted[3] - fitted[1])
        left, right = ((value + cut_left - fitted[1]) * scale_x for value in (box[0], box[2]))
        top, bottom = ((value + cut_top - fitted[0]) * scale_y for value in (box[1], box[3]))
        return (
            over + min(max(math.floor(left + ROUNDING), 0), width),
            above + min(max(math.floor(top + ROUNDING), 0), height),
            over + min(max(math.ceil(right - ROUNDING), 0), width),
            above + min(max(math.ceil(bottom - ROUNDING), 0), height),
        )


def _overlap(start: int, stop: int, length: int) -> tuple[slice, slice]:
    """Return the part of an interval that lies within [0, length), counted from its start, and from 0."""
    first, last = max(start, 0), max(min(stop, length), max(start, 0))
    return slice(first - start, last - start), slice(first, last)


def crop_padding(size: Size, crop: Size) -> tuple[Size, Size]:
    """Return the pixels that a centre crop removes above and below, left and right, rounded as in torchvision.

    >>> crop_padding((8, 9), (4, 4))
    ((2, 2), (2, 3))
    """
    top, left = round((size[0] - crop[0]) / 2.0), round((size[1] - crop[1]) / 2.0)
    return (top, size[0] - crop[0] - top), (left, size[1] - crop[1] - left)


def fitted_box(image_size: Size, size: Size) -> tuple[int, int, int, int]:
    """Return top, left, bottom, right of an image scaled to fit into `size`, centred.

    >>> fitted_box((100, 200), (64, 64))
    (16, 0, 48, 64)
    """
    scale = min(size[0] / image_size[0], size[1] / image_size[1])
    height = max(1, min(size[0], round(image_size[0] * scale)))
    width = max(1, min(size[1], round(image_size[1] * scale)))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return top, left, top + height, left + width


def resize_bilinear(values: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """Resize (h, w) to (H, W) as torch's bilinear does: pixel centres aligned, edges repeated, no smoothing."""
    if values.shape == tuple(size):
        return values
    upper, lower, down = _neighbours(values.shape[0], size[0])
    left, right, along = _neighbours(values.shape[1], size[1])
    with np.errstate(invalid="ignore"):
        rows = _mix(values[upper], values[lower], down[:, None])  # (h, w) -> (H, w)
        return _mix(rows[:, left], rows[:, right], along)  # (H, w) -> (H, W)


def enlarge_bilinear(values: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """Return `resize_bilinear` of (h, w), by Pillow where that is the same: ten times as fast, equal to 1e-6."""
    if values.shape[0] > size[0] or values.shape[1] > size[1] or not np.isfinite(values).all():
        return resize_bilinear(values, size)  # Pillow would smooth, or spread infinite values
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def resize_nearest(mask: NDArray[T], size: Size) -> NDArray[T]:
    """Resize (h, w) to (H, W) as torch's nearest does."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def _neighbours(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return for each new position the two adjacent old positions and the weight of the second."""
    place = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    first = np.minimum(place.astype(np.intp), old - 1)
    return first, np.minimum(first + 1, old - 1), (place - first).astype(np.float32)


def _mix(first: NDArray[np.float32], second: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    mixed = first * (1 - weight) + second * weight
    undefined = np.isnan(mixed)
    if undefined.any():  # 0 * inf, or both infinities: the nearer of the two; NaN stays NaN
        mixed = np.where(undefined, np.where(weight <= 0.5, first, second), mixed)
    return mixed
