"""Tiles: where they lie, and that joined ones have no seams."""

import numpy as np
import pytest
import torch

from defectlab.kernels.tiles import TileGrid

GRIDS = [
    (whole, tile, overlap) for whole in ((96, 128), (100, 77)) for tile in ((64, 64), (33, 50)) for overlap in (0, 0.3)
]


@pytest.mark.row("3.14")
@pytest.mark.parametrize(("whole", "tile", "overlap"), GRIDS)
def test_tiles_cover_the_image_and_join_without_seams(whole, tile, overlap):
    grid = TileGrid.of(whole, tile, overlap)
    for starts, length, side in zip((grid.rows, grid.columns), whole, tile, strict=True):
        assert (starts[0], starts[-1]) == (0, length - side)
        assert max(np.diff(starts), default=0) <= side - round(overlap * side)
    images = torch.rand(2, 3, *whole)
    assert torch.allclose(grid.join(grid.cut(images)), images, atol=1e-6)
    steps = torch.zeros(len(grid.places), 1, *tile) + torch.arange(len(grid.places)).reshape(-1, 1, 1, 1)
    joined = grid.join(steps)[0, 0]  # neighbours differ by steps: fading leaves no jump as large where they overlap
    if overlap and len(grid.columns) > 1:
        assert float(joined.diff(dim=1).abs().max()) < 0.5
