"""Two pictures of one thing brought over each other: a crop is undone by scale and shift. Numpy and scipy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

Picture = NDArray[np.float32]  # (S, S), S a power of two

MOST = 0.25  # of half the picture, in scale or shift: a "slight" crop
LEAST_OVERLAP = 0.6
BLUR = 0.7  # pixels, at every scale


@dataclass(frozen=True)
class Placement:
    """Where a picture's points lie in another: y -> (1 + scale_y) y + shift_y, x alike; the picture spans [-1, 1]."""

    scale_y: float = 0.0
    shift_y: float = 0.0
    scale_x: float = 0.0
    shift_x: float = 0.0

    @property
    def largest(self) -> float:
        """Largest of the four numbers, by size."""
        return max(abs(self.scale_y), abs(self.shift_y), abs(self.scale_x), abs(self.shift_x))

    def apply(self, picture: Picture) -> Picture:
        """Return the picture (S, S) as the other one shows it; its border pixels go on outside."""
        centre = (len(picture) - 1) / 2
        matrix = [1 + self.scale_y, 1 + self.scale_x]
        offset = [
            centre - matrix[0] * centre + self.shift_y * centre,
            centre - matrix[1] * centre + self.shift_x * centre,
        ]
        return affine_transform(picture, matrix, offset, order=1, mode="nearest")

    def inside(self, size: int) -> NDArray[np.bool_]:
        """Return where (S, S) the picture has pixels of its own."""
        line, limit = np.linspace(-1, 1, size), 1 + 0.5 / size
        rows = np.abs((1 + self.scale_y) * line + self.shift_y) <= limit
        return rows[:, None] & (np.abs((1 + self.scale_x) * line + self.shift_x) <= limit)


def shrink(picture: Picture, size: int) -> Picture:
    """Return means over blocks: (S, S) -> (size, size)."""
    block = len(picture) // size
    return picture.reshape(size, block, size, block).mean((1, 3))


def register(moving: Picture, fixed: Picture, sizes: tuple[int, ...], steps: int = 6) -> Placement | None:
    """Return where `moving` lies over `fixed`, whatever its gain and offset; None where no slight crop explains it.

    Gauss-Newton on grey values, coarse to fine (Lucas and Kanade, 1981).
    """
    place = np.zeros(4)
    for size in sizes:
        ours, theirs = (gaussian_filter(shrink(picture, size), BLUR) for picture in (moving, fixed))
        line = np.linspace(-1, 1, size)
        for _ in range(steps):
            current = Placement(*place)
            overlap = current.inside(size)
            if overlap.mean() < LEAST_OVERLAP:
                return None
            seen = current.apply(ours)
            down, right = (np.gradient(seen, axis=axis) * (size - 1) / 2 for axis in (0, 1))
            columns = (down * line[:, None], down, right * line, right, seen, np.ones_like(seen))
            design = np.stack([column[overlap] for column in columns], axis=1).astype(np.float64)  # (pixels, 6)
            normal = design.T @ design + 1e-6 * np.eye(6)
            found = np.linalg.solve(normal, design.T @ theirs[overlap].astype(np.float64))
            if not found[4] > 0.05:  # the gain: below it there is nothing to hold on to
                return None
            step = np.clip(found[:4] / found[4], -0.05, 0.05)
            place = place + step
            if np.abs(place).max() > MOST:
                return None
            if np.abs(step).max() < 0.02 / size:
                break
    return Placement(*place)
