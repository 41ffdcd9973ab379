"""Anomaly maps on a model's input, brought onto the image: the geometry of the preprocessing undone, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Frame:
    """Where the model's input, or all its tiles, lie on the image: `size` and `crop` are (height, width)."""

    size: Size
    crop: Size | None = None
    keep_aspect: bool = False

    @classmethod
    def from_record(cls, preprocessing: Mapping[str, Any]) -> "Frame":
        """Read it from a run's `preprocessing`."""
        tiling = preprocessing.get("tiling")
        height, width = tiling["image_size"] if tiling else preprocessing["size"]
        crop = preprocessing.get("crop")
        return cls((height, width), (crop[0], crop[1]) if crop else None, bool(preprocessing.get("keep_aspect")))

    def to_grid(self, anomaly_map: NDArray[np.float32], image_size: Size, grid: Size) -> NDArray[np.float32]:
        """Bring a map (h, w) on the model's input onto a grid (H, W) over the whole image, bilinear.

        What a centre crop cut away was never looked at, so nothing there is ever flagged: it scores -inf.
        """
        seen = None
        if self.crop:
            padding = crop_padding(self.size, self.crop)
            anomaly_map = np.pad(anomaly_map, padding, mode="edge")
            seen = np.pad(np.ones(self.crop, dtype=np.bool_), padding)
        if self.keep_aspect:
            top, left, bottom, right = fitted_box(image_size, self.size)
            anomaly_map = anomaly_map[top:bottom, left:right]
            seen = None if seen is None else seen[top:bottom, left:right]
        resized = resize_bilinear(anomaly_map, grid)
        return resized if seen is None else np.where(resize_nearest(seen, grid), resized, np.float32(-np.inf))


def crop_padding(size: Size, crop: Size) -> tuple[Size, Size]:
    """Return what a centre crop cuts away above and below, left and right, as torchvision's CenterCrop rounds it.

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


def resize_nearest(mask: NDArray[T], size: Size) -> NDArray[T]:
    """Resize (h, w) to (H, W) as torch's nearest does."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def _neighbours(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return, for each new place, the two old ones beside it and the weight of the second."""
    place = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    first = np.minimum(place.astype(np.intp), old - 1)
    return first, np.minimum(first + 1, old - 1), (place - first).astype(np.float32)


def _mix(first: NDArray[np.float32], second: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    mixed = first * (1 - weight) + second * weight
    undefined = np.isnan(mixed)
    if undefined.any():  # 0 * inf, or both infinities: the nearer of the two; NaN stays NaN
        mixed = np.where(undefined, np.where(weight <= 0.5, first, second), mixed)
    return mixed
