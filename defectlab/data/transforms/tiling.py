"""Options for evaluating large images tile by tile. Does not use torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from defectlab.utils.validation import check_integer, check_option_names, check_range
from defectlab_runtime.errors import OptionError


@dataclass(frozen=True)
class Tiling:
    """Settings for resizing images to `image_size` = (height, width) and cutting them into tiles of the model's size.

    Attributes:
        image_size: Height and width in pixels of the whole.
        overlap: Least share of a tile that it has in common with the next, in [0, 0.9].
        random_tiles: Tiles sampled from each image at each step of a training; None takes all of them.
    """

    image_size: tuple[int, int]
    overlap: float = 0.25
    random_tiles: int | None = None

    @classmethod
    def of(cls, given: "Mapping[str, Any] | Tiling | None") -> "Tiling | None":
        """Return the tiling given by options; None if no tiling is given.

        Raises:
            OptionError: Names what cannot work.
        """
        if given is None or isinstance(given, Tiling):
            return given
        if not isinstance(given, Mapping):
            raise OptionError(f"tiling must be options such as {{image_size: [1024, 1024]}}, got {given!r}.")
        check_option_names(given, ("image_size", "overlap", "random_tiles"), "tiling")
        size, overlap, random_tiles = given.get("image_size"), given.get("overlap", 0.25), given.get("random_tiles")
        sides = [size, size] if isinstance(size, int) else list(size) if isinstance(size, list | tuple) else []
        if len(sides) != 2:
            raise OptionError(f"tiling: image_size must be the whole image's [height, width] in pixels, got {size!r}.")
        for side in sides:
            check_integer("tiling", "image_size", side, low=1)
        check_range("tiling", "overlap", overlap, low=0, high=0.9)
        if random_tiles is not None:
            check_integer("tiling", "random_tiles", random_tiles, low=1)
        return cls((sides[0], sides[1]), float(overlap), random_tiles)

    def to_dict(self) -> dict[str, Any]:
        """Return the tiling as plain data, which `of` converts back."""
        random_tiles = {} if self.random_tiles is None else {"random_tiles": self.random_tiles}
        return {"image_size": list(self.image_size), "overlap": self.overlap, **random_tiles}
