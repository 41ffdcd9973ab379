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

from defectlab_runtime.image_bands import row_blocks

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
        cls,
        high: NDArray[Any],
        low: NDArray[Any],
        *,
        alpha: NDArray[np.uint8] | None = None,
        indices: NDArray[np.uint8] | None = None,
    ) -> "MaskChannels":
        """Return the channels of a mask.

        Where opacity varies, transparent pixels count as 0, and if everything drawn is black, opacity is the value.
        Where the colours of a palette are equally bright, their numbers are.

        Args:
            high: (H, W) largest of each pixel's colours.
            low: (H, W) smallest of them; where no pixel has two, `high` itself.
            alpha: (H, W) opacity, where the file has one.
            indices: (H, W) numbers of a palette's colours, where the file has one.
        """
        if alpha is not None and alpha.min() < HALF_OPAQUE <= alpha.max():
            blocks = list(row_blocks(*high.shape))
            if not any((high[rows][alpha[rows] >= HALF_OPAQUE]).any() for rows in blocks):
                return cls(alpha, alpha, "alpha", has_alpha=True)  # black ink on a transparent ground
            dimmed = _dimmed(high, alpha)
            return cls(dimmed, dimmed if low is high else _dimmed(low, alpha), has_alpha=True)
        if indices is None or not any(
            ((indices[rows] != 0) != (high[rows] > 0)).any() for rows in row_blocks(*high.shape)
        ):
            return cls(high, low)
        if high.min() == high.max():
            return cls(indices, indices, "index", palette_differs=True)
        return cls(high, low, palette_differs=True)

    def content(self, *, lossy: bool) -> MaskContent:
        """Return the facts of these channels; `lossy` says whether they are of a JPEG file."""
        high = value_counts(self.high)
        return MaskContent(
            high=high,
            low=high if self.low is self.high else value_counts(self.low),
            source=self.source,
            lossy=lossy,
            has_alpha=self.has_alpha,
            palette_differs=self.palette_differs,
            faintest=_faintest(self.high) if high.shape[1] > 2 else float(high[0, -1]),
        )


def _dimmed(values: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return values on a black ground, as opaque as `alpha` says."""
    dimmed = np.empty_like(values)
    for rows in row_blocks(*values.shape):
        dimmed[rows] = values[rows].astype(np.uint16) * alpha[rows] // 255
    return dimmed


def value_counts(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return (2, n): the distinct values of (H, W) pixels, ascending, and their numbers of pixels."""
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        counts = np.zeros(1 << 8 * values.dtype.itemsize)
        for rows in row_blocks(*values.shape):
            if len(counts) == 256:  # twenty times as fast as bincount
                counts += Image.fromarray(np.ascontiguousarray(values[rows])).histogram()
            else:
                counts += np.bincount(values[rows].ravel(), minlength=len(counts))
        found = np.flatnonzero(counts)
        return np.stack([found.astype(np.float64), counts[found]])
    distinct, repeats = np.unique(values, return_counts=True)
    return np.stack([distinct.astype(np.float64), repeats.astype(np.float64)])


def _faintest(values: NDArray[Any]) -> float:
    """Return the smallest of the largest values of the connected regions that are no noise."""
    from scipy import ndimage

    from defectlab.evaluation.pixel.regions import NEIGHBOURS

    noise = NOISE * float(values.max())
    marked_rows = np.flatnonzero(values.max(axis=1) > noise)
    if not len(marked_rows):
        return 0.0
    faintest = float(values.max())
    # no region goes on behind a row without any: most of a large mask is not looked at
    for rows in np.split(marked_rows, np.flatnonzero(np.diff(marked_rows) > 1) + 1):
        part = values[rows[0] : rows[-1] + 1]
        columns = np.flatnonzero(part.max(axis=0) > noise)
        part = part[:, columns[0] : columns[-1] + 1]
        labels, count = ndimage.label(part > noise, structure=NEIGHBOURS)
        largest = np.zeros(count + 1, values.dtype)
        np.maximum.at(largest, labels, part)  # ndimage.maximum sorts all pixels
        faintest = min(faintest, float(largest[1:].min()))
    return faintest
