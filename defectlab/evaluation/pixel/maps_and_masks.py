"""Access to anomaly maps and masks image by image, in memory or memory-mapped, of one size or of several."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from defectlab.evaluation.metrics import Floats
from defectlab_runtime.errors import InputError


class PixelImages(Protocol):
    """Protocol of a source of scored images: the sizes, and the map and mask of each image by position."""

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """Height and width of each image's map and mask."""

    def map(self, index: int) -> NDArray[np.float32]:
        """Raw anomaly map (H, W) of one image."""

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Mask (H, W) of one image, True where a defect is."""


class ArrayImages:
    """Maps (n, H, W) float32 and masks (n, H, W), in memory or memory-mapped; masks may be packed eight to a byte.

    Raises:
        InputError: Shapes that differ, or maps that are not float32, the type of every record.
    """

    def __init__(self, maps: Floats, masks: NDArray[np.bool_] | NDArray[np.uint8]) -> None:
        packed = masks.dtype == np.uint8 and masks.shape[-1:] != maps.shape[-1:]
        width = maps.shape[-1] if maps.ndim == 3 else 0
        whole = (*masks.shape[:-1], width) if packed and masks.shape[-1] == -(-width // 8) else masks.shape
        if maps.ndim != 3 or maps.shape != whole:
            raise InputError(f"Maps and masks must be (n, H, W) alike, got {maps.shape} and {masks.shape}.")
        if maps.dtype != np.float32:
            raise InputError(f"Maps must be float32, as records hold them, got {maps.dtype}: use astype(np.float32).")
        self._maps = maps
        self._masks = masks
        self._packed = packed

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """Height and width of each image."""
        return [(self._maps.shape[1], self._maps.shape[2])] * len(self._maps)

    def map(self, index: int) -> NDArray[np.float32]:
        """Raw anomaly map (H, W) of one image."""
        return np.asarray(self._maps[index])

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Mask (H, W) of one image."""
        mask = self._masks[index]
        if self._packed:
            return np.unpackbits(mask, axis=-1, count=self._maps.shape[-1]).view(np.bool_)
        return np.asarray(mask).astype(np.bool_, copy=False)


def maps_problem(maps: Floats, labels: Sequence[int] | NDArray[np.int64]) -> str | None:
    """Return how many maps (n, H, W) of labelled images have a value that is NaN or infinite, None if there is none.

    A model that gives one has failed on that image. Images labelled -1 are left out.
    """
    places = [place for place, label in enumerate(labels) if label >= 0]
    wrong = sum(not np.isfinite(maps[place]).all() for place in places)
    return f"{wrong} of {len(places)} anomaly maps have values that are not finite" if wrong else None


class ImageSubset:
    """A subset of another source's images, in the order of the given positions."""

    def __init__(self, images: PixelImages, positions: Sequence[int]) -> None:
        self._images = images
        self._positions = list(positions)

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """Height and width of each image."""
        sizes = self._images.sizes
        return [sizes[place] for place in self._positions]

    def map(self, index: int) -> NDArray[np.float32]:
        """Raw anomaly map (H, W) of one image."""
        return self._images.map(self._positions[index])

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Mask (H, W) of one image."""
        return self._images.mask(self._positions[index])


class MaskedImages:
    """Another source's images, of which those at given positions are blank: size 0 x 0, so no pixel is counted."""

    def __init__(self, images: PixelImages, positions: Iterable[int]) -> None:
        self._images = images
        self._blank = frozenset(positions)

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """Height and width of each image, 0 and 0 of a blank one."""
        return [(0, 0) if place in self._blank else size for place, size in enumerate(self._images.sizes)]

    def map(self, index: int) -> NDArray[np.float32]:
        """Raw anomaly map (H, W) of one image."""
        return np.empty((0, 0), dtype=np.float32) if index in self._blank else self._images.map(index)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Mask (H, W) of one image."""
        return np.empty((0, 0), dtype=np.bool_) if index in self._blank else self._images.mask(index)


def blocks_of(sizes: Sequence[tuple[int, int]], pixels: int) -> Iterator[range]:
    """Split image positions into consecutive ranges of at most `pixels` pixels, each of at least one image.

    >>> list(blocks_of([(2, 2), (2, 2), (3, 3), (1, 1)], 8))
    [range(0, 2), range(2, 3), range(3, 4)]
    """
    start, held = 0, 0
    for place, (height, width) in enumerate(sizes):
        if place > start and held + height * width > pixels:
            yield range(start, place)
            start, held = place, 0
        held += height * width
    if len(sizes) > start:
        yield range(start, len(sizes))
