"""What happens to an image before the model sees it: the settings, and the part of it that no exported graph does."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectlab_runtime.errors import DataError, OptionError
from defectlab_runtime.geometry import Bounds, Frame, Size, fitted_box
from defectlab_runtime.imagenet import IMAGENET_MEAN, IMAGENET_STD
from defectlab_runtime.region import Region
from defectlab_runtime.tiling import Tiling

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


@dataclass(frozen=True)
class PreprocessingSettings:
    """Resize, optional centre crop, normalisation: frozen, hashed, saved with the model.

    `size` and `crop` are (height, width) in pixels. With `keep_aspect` the image is scaled to fit into `size` and
    the rest is filled with the mean colour; without, it is stretched to `size`, as anomalib does. `region` is cut out
    of the image first. With `tiling`, `size` is that of a tile, and the image is brought to the tiling's. Values of
    16-bit grey files have `bit_depth` bits; None is 16.
    """

    size: Size = (256, 256)
    crop: Size | None = None
    keep_aspect: bool = False
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"
    region: Region | None = None
    tiling: Tiling | None = None
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", height_width("image_size", self.size))
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if self.crop is not None:
            object.__setattr__(self, "crop", height_width("center_crop", self.crop))
            if self.crop[0] > self.size[0] or self.crop[1] > self.size[1]:
                raise OptionError(f"center_crop {self.crop} is larger than image_size {self.size}; make it smaller.")
        if self.interpolation not in INTERPOLATIONS:
            raise OptionError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise OptionError(f"mean and std need three numbers, std above 0; got {self.mean} and {self.std}.")

        if self.tiling is not None:
            _check_tiling(self.tiling, self.size, self.crop)

    @property
    def input_size(self) -> Size:
        """Height and width of the model's input, which is a tile if images are tiled."""
        return self.crop or self.size

    @property
    def whole_size(self) -> Size:
        """Height and width that images are resized to before a centre crop or tiling."""
        return self.size if self.tiling is None else self.tiling.image_size

    @property
    def map_size(self) -> Size:
        """Height and width of anomaly maps, which cover the model's input or all its tiles together."""
        return self.input_size if self.tiling is None else self.tiling.image_size

    @property
    def hash(self) -> str:
        """A hash of sixteen hex digits over all fields."""
        data = self.to_dict()
        if self.region is not None:
            data["area"] = {key: value for key, value in data["area"].items() if key != "code"}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data for JSON and checkpoints."""
        plain = asdict(replace(self, region=None, tiling=None))
        data = {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
        del data["region"], data["tiling"]  # left out where there is none: hashes from before there was a choice stay
        if self.bit_depth is None:
            del data["bit_depth"]
        data |= {} if self.region is None else {"area": self.region.to_dict()}
        return data if self.tiling is None else {**data, "tiling": self.tiling.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build the settings from the dictionary made by `to_dict`."""
        fields: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in data.items()}
        region, tiling = Region.from_dict(fields.pop("area", None)), Tiling.from_dict(fields.pop("tiling", None))
        return cls(**fields, region=region, tiling=tiling)

    @property
    def frame(self) -> Frame:
        """The position of the model's input on the image, for inverse mapping."""
        return Frame(self.whole_size, self.crop, self.keep_aspect, self.region)

    def box_to_image(self, box: Bounds, image_size: Size) -> tuple[int, int, int, int]:
        """Convert a box (left, top, right, bottom) on the model's input to pixels of the image; see `Frame`."""
        return self.frame.box_to_image(box, image_size)

    def prepare(self, image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Cut the region out of an image (H, W, 3), uint8 or float32 in [0, 1], and resize it to `whole_size`.

        Crop, tiles and normalisation come after it, in the exported graph.

        Returns:
            (3, h, w) in [0, 1], but for the overshoot of bicubic resampling.

        Raises:
            DataError: The image does not fit the region.
        """
        if self.region is not None:
            check_region(self.region, (image.shape[0], image.shape[1]))
            image = self.region.cut(image)
        found = np.empty((3, *self.whole_size), np.float32)
        top, left, bottom, right = 0, 0, *self.whole_size
        if self.keep_aspect:
            top, left, bottom, right = fitted_box((image.shape[0], image.shape[1]), self.whole_size)
            found[:] = np.asarray(self.mean, np.float32)[:, None, None]
        for channel in range(3):  # one at a time: a large image is held as floats in one channel only
            values = image[..., channel].astype(np.float32)
            if image.dtype == np.uint8:
                values *= np.float32(1 / 255)  # a product, as torchvision has it, not a quotient
            resized = resize_antialiased(values, (bottom - top, right - left), self.interpolation)
            found[channel, top:bottom, left:right] = resized
        return found


def check_region(region: Region, image_size: Size) -> None:
    """Check that an image of this (height, width) can be cut to a region.

    Raises:
        DataError: It has another size than the images that the region is of.
    """
    if why := region.problem(image_size):
        raise DataError(f"This image is {why}: it cannot be looked at as the training images were.")


def resize_antialiased(values: NDArray[np.float32], size: Size, interpolation: str) -> NDArray[np.float32]:
    """Resize (h, w) to (H, W) as torchvision does with antialias, to 2e-5 of values in [0, 1].

    Pillow resamples images of floats with the same kernels, whose weights it computes in float64 and torch in float32:
    that is all of the difference, 1e-5 for noise at the most unfavourable ratio seen. Nearest takes torch's pixels.
    """
    if values.shape == tuple(size):
        return values
    if interpolation == "nearest":
        rows, columns = (_nearest(old, new) for old, new in zip(values.shape, size, strict=True))
        return values[np.ix_(rows, columns)]
    kernel = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), kernel))


def _nearest(old: int, new: int) -> NDArray[np.intp]:
    """Return the old position of each new one, computed in float32 as torch does."""
    places = np.floor(np.arange(new, dtype=np.float32) * np.float32(old / new)).astype(np.intp)
    return np.minimum(places, old - 1)


def height_width(name: str, value: Any) -> Size:
    """Return the option `name`, given as one number or as two, as height and width in pixels.

    Raises:
        OptionError: Another number of values, or one that is no whole number of at least 1.
    """
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2 or any(not isinstance(item, int) or item < 1 for item in values):
        raise OptionError(f"{name} must be (height, width) in whole pixels of at least 1, got {values}.")
    return values[0], values[1]


def _check_tiling(tiling: Tiling, tile: Size, crop: Size | None) -> None:
    whole = tiling.image_size
    if crop is not None:
        raise OptionError("Tiled images have no center_crop: leave it out.")
    if whole[0] < tile[0] or whole[1] < tile[1] or whole == tile:
        raise OptionError(
            f"tiling: image_size {whole} must be larger than a tile, which is the model's own image_size {tile}."
        )
