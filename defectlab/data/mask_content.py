"""What a mask's pixels hold, and which of them count as marked. Does not use torch.

Masks come as 0 and 255, as class numbers, with soft edges, compressed as JPEG, drawn on a transparent ground or by a
palette. `MaskContent` has the facts of one file, `choose_reading` decides for all masks of a dataset what is marked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HALF_OPAQUE = 128  # of 255
NOISE = 1 / 8  # of a mask's largest value: a fainter region is compression noise, not a defect of another class

Source = Literal["colour", "alpha", "index"]


@dataclass(frozen=True, eq=False)
class MaskContent:
    """Facts on the pixels of a mask file.

    Attributes:
        high: (2, n): the distinct values of the largest channel, ascending, and their numbers of pixels.
        low: The same of the smallest channel; of a grey mask it is the same array.
        source: What values are: colours, opacity (everything drawn is black), or numbers of a palette's colours (these
            do not differ in brightness).
        lossy: Whether it is a JPEG file, which has compression noise.
        has_alpha: Whether some pixels are transparent and others are not.
        palette_differs: Whether the numbers of a palette, not 0, mark other pixels than its colours, not black.
        faintest: Largest value of that connected region whose largest value is smallest; of two values it is the other.
    """

    high: NDArray[np.float64]
    low: NDArray[np.float64]
    source: Source = "colour"
    lossy: bool = False
    has_alpha: bool = False
    palette_differs: bool = False
    faintest: float = 0.0

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return int(self.high[1].sum())

    @property
    def largest(self) -> float:
        """The largest value."""
        return float(self.high[0, -1])

    @property
    def has_colours(self) -> bool:
        """Whether the channels of some pixel differ."""
        return not np.array_equal(self.high, self.low)

    @property
    def is_soft(self) -> bool:
        """Whether there are more than two values."""
        return self.high.shape[1] > 2


@dataclass(frozen=True)
class MaskReading:
    """Which pixels of a mask are marked: those with a channel above `threshold`, or if inverted at most `threshold`.

    `orientation` is the EXIF orientation of the image where the mask was drawn on its stored pixels, else 1.
    """

    threshold: float = 0
    inverted: bool = False
    orientation: int = 1

    def marked(self, high: NDArray[Any], low: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which pixels are marked, from their largest and their smallest channel."""
        return np.asarray(low <= self.threshold if self.inverted else high > self.threshold)

    def share(self, content: MaskContent) -> float:
        """Return the share of a mask's pixels that is marked."""
        values, counts = content.low if self.inverted else content.high
        return float(counts[self.marked(values, values)].sum()) / content.pixels

    def is_not_zero(self, contents: Iterable[MaskContent]) -> bool:
        """Return whether exactly the pixels whose colour is not black are marked, whatever their opacity."""
        return not self.inverted and not any(
            c.source != "colour" or c.has_alpha or bool(((c.high[0] > 0) & (c.high[0] <= self.threshold)).any())
            for c in contents
        )

    def describe(self) -> str:
        """Return what is marked, in words."""
        if self.inverted:
            return "0" if self.threshold == 0 else f"at most {self.threshold:g}"
        return "not 0" if self.threshold == 0 else f"above {self.threshold:g}"

    def to_dict(self) -> dict[str, Any]:
        """Return what is the same for all masks of a dataset as plain data."""
        return {"threshold": self.threshold, "inverted": self.inverted}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> "MaskReading":
        """Build a reading from `to_dict`; None, of records from before there was a choice, marks what is not 0."""
        return cls() if data is None else cls(threshold=data["threshold"], inverted=data["inverted"])


NOT_ZERO = MaskReading()


def choose_reading(
    contents: Sequence[MaskContent], threshold: float | None = None, inverted: bool = False
) -> tuple[MaskReading, str]:
    """Return what is marked in all masks of a dataset, and the reason.

    Without a threshold that is given, everything that is not 0 is marked where masks have two values. Where they have
    more, soft edges or JPEG noise, values above half of the largest are, unless a mask or a whole connected region of
    it lies below: then values are taken for classes, and all that are not 0 are marked. Whether they lie below is not
    asked of JPEG masks, whose noise may.
    """
    if threshold is not None:
        return MaskReading(threshold, inverted), "mask_threshold"
    soft = [content for content in contents if content.is_soft]
    if not soft:
        return MaskReading(0, inverted), "masks have two grey levels"
    half = max(content.largest for content in contents) / 2
    half = half if half < 1 else half // 1
    faint = sum(0 < content.faintest <= half for content in contents if not content.lossy)
    if faint:
        return MaskReading(0, inverted), f"values look like classes: half of the largest would lose {faint} masks"
    return MaskReading(half, inverted), f"{len(soft)} masks have soft edges or noise: half of the largest value"


@dataclass(frozen=True, eq=False)
class MaskChannels:
    """The largest and the smallest channel (H, W) of each pixel of a mask; for the others see `MaskContent`."""

    high: NDArray[Any]
    low: NDArray[Any]
    source: Source = "colour"
    has_alpha: bool = False
    palette_differs: bool = False

    @classmethod
    def of(
        cls, pixels: NDArray[Any], *, indices: NDArray[np.uint8] | None = None, opaque: bool = True
    ) -> "MaskChannels":
        """Return the channels of a mask.

        Where opacity varies, transparent pixels count as 0, and if everything drawn is black, opacity is the value.
        Where the colours of a palette are equally bright, their numbers are.

        Args:
            pixels: (H, W), (H, W, 3) or (H, W, 4), whose fourth channel is opacity.
            indices: (H, W) numbers of a palette's colours, where the file has one.
            opaque: Whether the file has no transparency, so that a fourth channel is not looked at.
        """
        if pixels.ndim == 2:
            return cls(pixels, pixels)
        red, green, blue = (pixels[..., channel] for channel in range(3))
        # ten times as fast as a maximum along the last axis
        high, low = (find(find(red, green), blue) for find in (np.maximum, np.minimum))
        low = high if np.array_equal(high, low) else low
        alpha = None if opaque or pixels.shape[2] < 4 else pixels[..., 3]
        visible = alpha is not None and alpha >= HALF_OPAQUE
        if alpha is not None and np.any(visible) and not np.all(visible):
            if not high[visible].any():  # black ink on a transparent ground
                alpha = np.ascontiguousarray(alpha)
                return cls(alpha, alpha, "alpha", has_alpha=True)
            dimmed = (high.astype(np.uint16) * alpha // 255).astype(np.uint8)
            if low is not high:
                low = (low.astype(np.uint16) * alpha // 255).astype(np.uint8)
            return cls(dimmed, dimmed if low is high else low, has_alpha=True)
        if indices is None or not bool(((indices != 0) != (high > 0)).any()):
            return cls(high, low)
        if high.min() == high.max():
            return cls(indices, indices, "index", palette_differs=True)
        return cls(high, low, palette_differs=True)

    def content(self, *, lossy: bool) -> MaskContent:
        """Return the facts of these channels; `lossy` says whether they are of a JPEG file."""
        high = _counted(self.high)
        return MaskContent(
            high=high,
            low=high if self.low is self.high else _counted(self.low),
            source=self.source,
            lossy=lossy,
            has_alpha=self.has_alpha,
            palette_differs=self.palette_differs,
            faintest=_faintest(self.high) if high.shape[1] > 2 else float(high[0, -1]),
        )


def _counted(values: NDArray[Any]) -> NDArray[np.float64]:
    if values.dtype == np.uint8:
        counts = np.array(Image.fromarray(values).histogram(), dtype=np.float64)
        found = np.flatnonzero(counts)
        return np.stack([found.astype(np.float64), counts[found]])
    distinct, repeats = np.unique(values, return_counts=True)
    return np.stack([distinct.astype(np.float64), repeats.astype(np.float64)])


def _faintest(values: NDArray[Any]) -> float:
    """Return the smallest of the largest values of the connected regions that are no noise."""
    from scipy import ndimage

    from defectlab.evaluation.pixel.regions import NEIGHBOURS

    labels, count = ndimage.label(values > NOISE * float(values.max()), structure=NEIGHBOURS)
    if not count:
        return 0.0
    largest = np.zeros(count + 1, values.dtype)
    np.maximum.at(largest, labels, values)  # ndimage.maximum sorts all pixels
    return float(largest[1:].min())
