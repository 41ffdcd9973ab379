"""How large images are evaluated tile by tile, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
    def from_dict(cls, data: Mapping[str, Any] | None) -> "Tiling | None":
        """Build the tiling from the dictionary made by `to_dict`; None from None."""
        if data is None:
            return None
        height, width = data["image_size"]
        return cls(**{**data, "image_size": (height, width)})

    def to_dict(self) -> dict[str, Any]:
        """Return the tiling as plain data."""
        random_tiles = {} if self.random_tiles is None else {"random_tiles": self.random_tiles}
        return {"image_size": list(self.image_size), "overlap": self.overlap, **random_tiles}
