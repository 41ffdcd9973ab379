"""Grids that cut images into overlapping tiles and join results of the tiles without seams."""

from dataclasses import dataclass

import torch

Size = tuple[int, int]
ALIGNED = 32  # pixels: where it can be, tiles start at multiples, as the strides of backbones do


@dataclass(frozen=True)
class TileGrid:
    """Where tiles of `tile` = (height, width) lie on images of `whole`: starts of rows and of columns, in pixels."""

    whole: Size
    tile: Size
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, whole: Size, tile: Size, overlap: float) -> "TileGrid":
        """Return evenly spread tiles, as few as overlap by at least a share `overlap` of a tile.

        >>> TileGrid.of((64, 64), (32, 64), 0.5).rows
        (0, 16, 32)
        """
        rows, columns = (_starts(w, t, round(overlap * t)) for w, t in zip(whole, tile, strict=True))
        return cls(whole, tile, rows, columns)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Top and left positions of each tile in pixels, row by row."""
        return [(top, left) for top in self.rows for left in self.columns]

    def scaled(self, tile: Size) -> "TileGrid":
        """Return the grid for tiles of another size, such as a layer's features of them.

        Raises:
            ValueError: Tiles would start between two cells.
        """
        ratios = [(new, old) for new, old in zip(tile, self.tile, strict=True)]
        for starts, whole, (new, old) in zip((self.rows, self.columns), self.whole, ratios, strict=True):
            if any(start * new % old for start in (*starts, whole)):
                raise ValueError(f"tiles of {old} pixels that start at {list(starts)} do not meet on {new} cells each")
        sizes = [(whole * new // old) for whole, (new, old) in zip(self.whole, ratios, strict=True)]
        rows, columns = (
            tuple(start * new // old for start in starts)
            for starts, (new, old) in zip((self.rows, self.columns), ratios, strict=True)
        )
        return TileGrid((sizes[0], sizes[1]), tile, rows, columns)

    def cut(self, images: torch.Tensor) -> torch.Tensor:
        """Cut images (B, C, H, W) into tiles (B * T, C, h, w), those of one image after another."""
        height, width = self.tile
        tiles = [images[..., top : top + height, left : left + width] for top, left in self.places]
        return torch.stack(tiles, dim=1).flatten(0, 1)  # (B, T, C, h, w) -> (B * T, C, h, w)

    def join(self, tiles: torch.Tensor) -> torch.Tensor:
        """Put tiles (B * T, C, h, w) together to (B, C, H, W); where they overlap one fades into the next."""
        per_image = len(self.places)
        parts = tiles.unflatten(0, (-1, per_image))  # (B, T, C, h, w)
        height, width = self.tile
        down, along = (_fade(length, tiles) for length in self.tile)
        weight = down[:, None] * along  # (h, w)
        total = tiles.new_zeros((parts.shape[0], parts.shape[2], *self.whole))
        weights = tiles.new_zeros(self.whole)
        for number, (top, left) in enumerate(self.places):
            total[..., top : top + height, left : left + width] += weight * parts[:, number]
            weights[top : top + height, left : left + width] += weight
        return total / weights


def _starts(whole: int, tile: int, overlap: int) -> tuple[int, ...]:
    if whole <= tile:
        return (0,)
    room, step = whole - tile, tile - overlap
    count = -(-room // step) + 1
    unit = ALIGNED if room % ALIGNED == 0 and step >= ALIGNED else 1
    if unit > 1:
        count = -(-room // (step // unit * unit)) + 1
    return tuple(round(room * number / (count - 1) / unit) * unit for number in range(count))


def _fade(length: int, like: torch.Tensor) -> torch.Tensor:
    """Return blending weights (length,) that rise from the edges to the middle and are never 0."""
    place = torch.arange(length, dtype=like.dtype, device=like.device)
    return torch.minimum(place, length - 1 - place) + 1
