"""Registration of pairs of pictures by scale and shift along the axes, which undoes a crop. Uses numpy and scipy only.

Many pairs are registered at once: scale and shift along the axes resample rows and columns separately, so that every
step is a few matrix products over all pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Picture = NDArray[np.float32]  # (S, S), S a power of two
Places = NDArray[np.float64]  # (n, 4): scale_y, shift_y, scale_x, shift_x of each pair

MAX_PLACEMENT = 0.25  # of half the picture, in scale or shift: a slight crop
MIN_OVERLAP = 0.6
BLUR = 0.7  # pixels, at every scale
BATCH_PIXELS = 2**18  # what stays in a processor's cache


@dataclass(frozen=True)
class Placement:
    """Where a picture's points lie in another: y -> (1 + scale_y) y + shift_y, x alike; the picture spans [-1, 1]."""

    scale_y: float = 0.0
    shift_y: float = 0.0
    scale_x: float = 0.0
    shift_x: float = 0.0

    def apply(self, picture: Picture) -> Picture:
        """Return the picture (S, S) resampled onto the other picture, with its border pixels extended outside."""
        return _applied(picture[None], self._places)[0]

    def inside(self, size: int) -> NDArray[np.bool_]:
        """Return a mask (S, S) of the points of the other picture that the placed picture covers."""
        rows, columns = _inside(self._places, size)
        return rows[0, :, None] & columns[0]

    @property
    def _places(self) -> Places:
        return np.array([[self.scale_y, self.shift_y, self.scale_x, self.shift_x]])


def shrink(picture: Picture, size: int) -> Picture:
    """Downsample a picture by means over blocks: (..., S, S) -> (..., size, size)."""
    block = picture.shape[-1] // size
    return picture.reshape(*picture.shape[:-2], size, block, size, block).mean((-3, -1))


def register_all(
    moving: NDArray[np.float32], fixed: NDArray[np.float32], sizes: tuple[int, ...], steps: int = 6
) -> list[Placement | None]:
    """Register the pictures `moving` (n, S, S) to `fixed` (n, S, S), or to one picture (1, S, S) for all.

    The placement does not depend on gain and offset; it is None for a pair that no slight crop explains. The method is
    Gauss-Newton on grey values, coarse to fine (Lucas and Kanade, 1981).
    """
    found: list[Placement | None] = []
    count = max(1, BATCH_PIXELS // max(sizes) ** 2)
    for start in range(0, len(moving), count):
        batch = slice(start, start + count)
        places, registered = _register(moving[batch], fixed if len(fixed) == 1 else fixed[batch], sizes, steps)
        found += [
            Placement(*place) if ok else None for place, ok in zip(places.tolist(), registered.tolist(), strict=True)
        ]
    return found


def _register(
    moving: NDArray[np.float32], fixed: NDArray[np.float32], sizes: tuple[int, ...], steps: int
) -> tuple[Places, NDArray[np.bool_]]:
    """Return the placements (n, 4) of one batch of pairs, and whether each pair (n,) was registered."""
    places, registered = np.zeros((len(moving), 4)), np.ones(len(moving), np.bool_)
    for size in sizes:
        ours, theirs = (gaussian_filter(shrink(pictures, size), (0, BLUR, BLUR)) for pictures in (moving, fixed))
        active = registered.copy()
        for _ in range(steps):
            at = np.flatnonzero(active)
            if not at.size:
                break
            step, ok = _step(ours[at], theirs if len(theirs) == 1 else theirs[at], places[at])
            places[at[ok]] += step[ok]
            ok &= np.abs(places[at]).max(axis=1) <= MAX_PLACEMENT
            registered[at[~ok]] = False
            active[at] = ok & (np.abs(step).max(axis=1) >= 0.02 / size)
    return places, registered


def _step(ours: NDArray[np.float32], theirs: NDArray[np.float32], places: Places) -> tuple[Places, NDArray[np.bool_]]:
    """Return each pair's next Gauss-Newton step (n, 4), and whether (n,) its overlap and gain are large enough."""
    count, size = len(ours), ours.shape[-1]
    rows, columns = _inside(places, size)
    overlap = (rows[:, :, None] & columns[:, None, :]).reshape(count, -1)
    line = np.linspace(-1, 1, size)
    seen = _applied(ours, places)
    down, right = (np.gradient(seen, axis=axis) * (size - 1) / 2 for axis in (1, 2))
    parts = (down * line[:, None], down, right * line, right, seen, np.ones_like(seen))
    design = np.stack([part.reshape(count, -1) for part in parts], axis=1).astype(np.float64)  # (n, 6, pixels)
    design *= overlap[:, None]
    normal = design @ design.transpose(0, 2, 1) + 1e-6 * np.eye(6)
    aim = design @ np.broadcast_to(theirs, ours.shape).reshape(count, -1, 1).astype(np.float64)
    found = np.linalg.solve(normal, aim)[..., 0]
    gain = found[:, 4]  # below 0.05 the pictures have too little structure in common
    ok = (overlap.mean(axis=1) >= MIN_OVERLAP) & (gain > 0.05)
    return np.clip(found[:, :4] / np.where(ok, gain, 1.0)[:, None], -0.05, 0.05), ok


def _inside(places: Places, size: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return masks of the rows and of the columns (n, size) that each placed picture covers."""
    line, limit = np.linspace(-1, 1, size), 1 + 0.5 / size
    rows, columns = (np.abs((1 + places[:, at, None]) * line + places[:, at + 1, None]) <= limit for at in (0, 2))
    return rows, columns


def _applied(pictures: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
    """Return pictures (n, S, S), or one for all placements, resampled linearly with border pixels extended outside."""
    down, across = (_weights(places[:, at], places[:, at + 1], pictures.shape[-1]) for at in (0, 2))
    return (down @ pictures @ across.transpose(0, 2, 1)).astype(np.float32, copy=False)


def _weights(scale: NDArray[np.float64], shift: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    """Return the linear interpolation weights (n, size, size) of each source pixel for each resampled one of a line."""
    centre = (size - 1) / 2
    at = (1 + scale[:, None]) * (np.arange(size) - centre) + (1 + shift[:, None]) * centre  # (n, size)
    at = np.clip(at, 0, size - 1)
    return np.maximum(0, 1 - np.abs(at[..., None] - np.arange(size))).astype(np.float32)
