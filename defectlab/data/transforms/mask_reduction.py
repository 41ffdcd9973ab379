"""Bringing a mask to a coarser or finer grid. Does not use torch.

By area, a cell of the grid is marked where at least half of it is, and no connected region of a mask is lost. The
nearest pixel, which anomalib and most toolkits take, drops defects that are thinner than a cell and moves what it keeps
by up to half a cell, because it reads the top left pixel of a cell while images and maps are aligned at centres.
"""

from collections.abc import Iterator
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from defectlab.evaluation.pixel.regions import NEIGHBOURS
from defectlab_runtime.geometry import Frame, Size, Slices, resize_nearest

HALF = 0.5  # of a cell
DECIMALS = 9  # of a cover: equal ones are equal whatever their rounding


def reduce_mask(mask: NDArray[np.bool_], size: Size, method: str = "area") -> NDArray[np.bool_]:
    """Bring a mask (h, w) to a grid (H, W).

    Args:
        mask: True where a defect is.
        size: Height and width of the grid.
        method: "area": a cell is marked from half its cover on. A connected region (pixels that touch at a corner are
            connected) that this drops or tears apart also gets the cells of highest cover along its course, so that
            no part of it is farther than a cell from a marked one.
            "nearest": a cell takes the pixel at its top left corner, as torch's nearest does.

    >>> scratch = np.zeros((8, 8), dtype=bool)
    >>> scratch[1] = True
    >>> reduce_mask(scratch, (2, 2)).tolist(), reduce_mask(scratch, (2, 2), "nearest").tolist()
    ([[True, True], [False, False]], [[False, False], [False, False]])
    """
    if mask.shape == tuple(size):
        return mask
    if method == "nearest":
        return resize_nearest(mask, size)
    if not mask.any():
        return np.zeros(size, dtype=np.bool_)
    whole = (slice(0, mask.shape[0]), slice(0, mask.shape[1]))
    half = _cover(mask, whole, mask.shape, size) >= HALF
    reduced = half.copy()
    for box, cover in _regions(mask, size):
        reduced[box] |= _lasting(half[box], cover)
    return reduced


def kept_regions(mask: NDArray[np.bool_], reduced: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each connected region of a mask (h, w) whether any cell (H, W) that it touches is marked."""
    found = [bool(reduced[box][cover > 0].any()) for box, cover in _regions(mask, reduced.shape)]
    return np.array(found, dtype=np.bool_)


def _regions(mask: NDArray[np.bool_], size: tuple[int, ...]) -> Iterator[tuple[Slices, NDArray[np.float64]]]:
    """Yield the cells of the grid that each connected region touches, and the share of each cell that it covers.

    The share is 1 of the only cell of a region within one cell: such a region is too small to be torn.
    """
    labels, _ = ndimage.label(mask, structure=NEIGHBOURS)
    for number, box in enumerate(cast("list[Slices]", ndimage.find_objects(labels)), start=1):
        cells = _cells(box[0], mask.shape[0], size[0]), _cells(box[1], mask.shape[1], size[1])
        if all(cell.stop - cell.start == 1 for cell in cells):
            yield cells, np.ones((1, 1))
        else:
            yield cells, _cover(labels[box] == number, box, mask.shape, size)


def _cells(side: slice, old: int, new: int) -> slice:
    """Return the cells that an interval of pixels touches, of `new` cells over `old` pixels."""
    return slice(side.start * new // old, -(-side.stop * new // old))


def _cover(part: NDArray[np.bool_], box: Slices, old: tuple[int, ...], new: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the share of each cell that a box of the mask touches that the marked pixels of the box cover."""
    values = part.astype(np.float64)
    for axis, (side, before, after) in enumerate(zip(box, old, new, strict=True)):
        cells = _cells(side, before, after)
        edges = np.arange(cells.start, cells.stop + 1) * (before / after) - side.start
        edges = np.clip(edges, 0, side.stop - side.start)
        values = np.moveaxis(_sums_between(np.moveaxis(values, axis, 0), edges) * (after / before), 0, axis)
    return values.round(DECIMALS)


def _sums_between(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the integral of rows (n, ...) between neighbouring edges, each row being as wide as 1."""
    total = np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(0)])
    below = edges.astype(np.intp)
    share = (edges - below)[:, None]
    at_edges = total[below] * (1 - share) + total[np.minimum(below + 1, len(values))] * share
    return np.diff(at_edges, axis=0)


def _lasting(half: NDArray[np.bool_], cover: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the cells (h, w) that stand for a region: those covered by half, and more where these leave parts out."""
    kept = half & (cover > 0)
    if ndimage.label(kept, structure=NEIGHBOURS)[1] != 1:
        kept |= _ridge(cover)
    while (rest := (cover > 0) & ~ndimage.binary_dilation(kept, NEIGHBOURS)).any():
        pieces, count = ndimage.label(rest, structure=NEIGHBOURS)
        for piece in range(1, count + 1):
            kept |= _ridge(np.where(pieces == piece, cover, 0))
    return kept


def _ridge(cover: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the cells (h, w) of highest cover across a region, one position after the other along its longer side.

    The ends of the region, where the highest cover is at most half of the best, are left out.
    """
    if cover.shape[0] > cover.shape[1]:
        return _ridge(cover.T).T
    highest = cover.max(0)
    inner = np.flatnonzero(highest > highest.max() / 2)
    ridge = cover == highest
    ridge[:, : inner[0]] = ridge[:, inner[-1] + 1 :] = False
    return ridge & (cover > 0)


def mask_on_input(mask: NDArray[np.bool_], region_size: Size, frame: Frame, method: str) -> NDArray[np.bool_]:
    """Bring the mask (h, w) of a region of an image to the model's input, of which `frame` says where it lies.

    `region_size` is the region's (height, width) in pixels of the image; the mask may have another size.
    """
    size, seen, place = frame.place(region_size)
    on_input = np.zeros(frame.crop or frame.size, dtype=np.bool_)
    on_input[place] = reduce_mask(mask, size, method)[seen]
    return on_input
