"""Compose an inspection photograph from crops: surface, pasted objects, lighting, and the exact mask.

Only additions, products and square roots are used and every mean is a mean of integers, so that the pixels do not
depend on the machine, the thread count or a library's version.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectlab.data.samples.photographs import Grey

SIZE = 256
FEATHER = 1.5  # pixels over which a pasted object blends into the surface

Plane = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """A rectangle of source pixels: columns left .. right - 1, rows top .. bottom - 1 of a photograph."""

    photo: str
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Shape:
    """An outline in the composed image; lengths in pixels.

    `disc`: points = ((x, y),), radii = (r,). `blob`: the union of discs. `quad`: a rectangle turned to `direction`
    with half sides `radii`. `line`: a quadratic curve through three control points, half width `radii[0]`.
    """

    kind: str
    points: tuple[tuple[float, float], ...]
    radii: tuple[float, ...]
    direction: tuple[float, float] = (1.0, 0.0)


@dataclass(frozen=True)
class Overlay:
    """Source pixels of a photograph that are pasted inside a shape.

    The square box is mapped onto the square of half side `reach` round `centre`, turned to `direction`. The pasted
    values keep their own mean (`match` 0) or take the mean of the surface below (`match` 1), plus `offset` grey
    levels; their deviations from the mean are scaled by `contrast`.
    """

    box: Box
    shape: Shape
    centre: tuple[float, float]
    reach: float
    direction: tuple[float, float] = (1.0, 0.0)
    flips: tuple[bool, bool] = (False, False)
    contrast: float = 1.0
    match: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True)
class Lighting:
    """A gain that changes linearly over the image (`slope` per image side along x and y), an offset in grey levels."""

    gain: float = 1.0
    slope: tuple[float, float] = (0.0, 0.0)
    offset: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Parameters for rendering one image: surface, flips, overlays and lighting."""

    surface: Box
    flips: tuple[bool, bool] = (False, False)
    overlays: tuple[Overlay, ...] = ()
    lighting: Lighting = field(default_factory=Lighting)

    def boxes(self) -> list[Box]:
        """Return every source box, which are the only source pixels that the image depends on."""
        return [self.surface, *(overlay.box for overlay in self.overlays)]


def render(scene: Scene, photographs: Mapping[str, Grey]) -> Grey:
    """Return the composed image (SIZE, SIZE), grey 0 .. 255."""
    canvas = render_surface(scene, photographs)
    for overlay in scene.overlays:
        canvas = paste(canvas, overlay, photographs)
    y, x = _grid()
    light = scene.lighting
    gain = light.gain + light.slope[0] * ((x + 0.5) / SIZE - 0.5) + light.slope[1] * ((y + 0.5) / SIZE - 0.5)
    return np.rint(np.clip(canvas * gain + light.offset, 0, 255)).astype(np.uint8)


def render_mask(scene: Scene) -> Grey:
    """Return 255 where an overlay can have changed a pixel and 0 where none has, (SIZE, SIZE)."""
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    for overlay in scene.overlays:
        mask[alpha(overlay.shape) > 0] = 255
    return mask


def render_surface(scene: Scene, photographs: Mapping[str, Grey]) -> Plane:
    """Return the surface crop, enlarged to (SIZE, SIZE), before anything is pasted and lit."""
    y, x = _grid()
    u, v = (x + 0.5) / SIZE, (y + 0.5) / SIZE
    flip_x, flip_y = scene.flips
    return sample_box(photographs, scene.surface, 1 - u if flip_x else u, 1 - v if flip_y else v)


def paste(canvas: Plane, overlay: Overlay, photographs: Mapping[str, Grey]) -> Plane:
    """Return the canvas with the overlay blended in; pixels where its shape's alpha is 0 stay as they are."""
    weight = alpha(overlay.shape)
    inside = weight > 0
    y, x = np.nonzero(inside)
    content = overlay_content(overlay, photographs, x, y)  # (P,) for the P pixels inside
    below = canvas[inside]
    own, local = _integer_mean(content), _integer_mean(below)
    value = own + overlay.match * (local - own) + overlay.offset + overlay.contrast * (content - own)
    result = canvas.copy()
    result[inside] = below + weight[inside] * (np.clip(value, 0, 255) - below)
    return result


def overlay_content(
    overlay: Overlay, photographs: Mapping[str, Grey], x: NDArray[np.int64], y: NDArray[np.int64]
) -> Plane:
    """Return the overlay's source values at pixels (x, y) of the composed image, before levels are matched."""
    dx, dy = x + 0.5 - overlay.centre[0], y + 0.5 - overlay.centre[1]
    cos, sin = overlay.direction
    u = 0.5 + (cos * dx + sin * dy) / (2 * overlay.reach)
    v = 0.5 + (cos * dy - sin * dx) / (2 * overlay.reach)
    flip_x, flip_y = overlay.flips
    return sample_box(photographs, overlay.box, 1 - u if flip_x else u, 1 - v if flip_y else v)


def sample_box(photographs: Mapping[str, Grey], box: Box, u: Plane, v: Plane) -> Plane:
    """Interpolate a photograph bilinearly at relative positions inside a box, u and v in 0 .. 1.

    Positions are clipped to the box's own pixel centres, so the footprint never leaves the box.
    """
    photo = photographs[box.photo]
    px = np.clip(box.left + u * (box.right - box.left) - 0.5, box.left, box.right - 1)
    py = np.clip(box.top + v * (box.bottom - box.top) - 0.5, box.top, box.bottom - 1)
    x0, y0 = np.floor(px).astype(np.int64), np.floor(py).astype(np.int64)
    x1, y1 = np.minimum(x0 + 1, box.right - 1), np.minimum(y0 + 1, box.bottom - 1)
    fx, fy = px - x0, py - y0
    upper = photo[y0, x0] * (1 - fx) + photo[y0, x1] * fx
    lower = photo[y1, x0] * (1 - fx) + photo[y1, x1] * fx
    return upper * (1 - fy) + lower * fy


@lru_cache(maxsize=8)  # an image needs its shape's weight three times: seam, paste, mask
def alpha(shape: Shape) -> Plane:
    """Return the blending weight of a shape, (SIZE, SIZE), 0 .. 1: 0.5 on the outline, linear across FEATHER pixels."""
    weight = np.clip(0.5 - _SIGNED_DISTANCE[shape.kind](shape) / FEATHER, 0, 1)
    weight.flags.writeable = False
    return weight


def _disc(shape: Shape) -> Plane:
    y, x = _grid()
    distances = [
        np.sqrt((x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2) - radius
        for (cx, cy), radius in zip(shape.points, shape.radii, strict=True)
    ]
    return np.minimum.reduce(distances)


def _quad(shape: Shape) -> Plane:
    y, x = _grid()
    (cx, cy), (cos, sin) = shape.points[0], shape.direction
    dx, dy = x + 0.5 - cx, y + 0.5 - cy
    along, across = np.abs(cos * dx + sin * dy), np.abs(cos * dy - sin * dx)
    return np.maximum(along - shape.radii[0], across - shape.radii[1])


def _line(shape: Shape) -> Plane:
    y, x = _grid()
    (ax, ay), (bx, by), (cx, cy) = shape.points
    nearest = np.full((SIZE, SIZE), np.inf)
    for step in range(97):
        t = step / 96
        px = (1 - t) * (1 - t) * ax + 2 * t * (1 - t) * bx + t * t * cx
        py = (1 - t) * (1 - t) * ay + 2 * t * (1 - t) * by + t * t * cy
        # The line thins out towards its ends, as a scratch does.
        radius = shape.radii[0] * (0.55 + 1.8 * t * (1 - t))
        nearest = np.minimum(nearest, np.sqrt((x + 0.5 - px) ** 2 + (y + 0.5 - py) ** 2) - radius)
    return nearest


_SIGNED_DISTANCE: dict[str, Callable[[Shape], Plane]] = {"disc": _disc, "blob": _disc, "quad": _quad, "line": _line}


def _grid() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    return y, x


def _integer_mean(values: Plane) -> float:
    # A sum of integers has no rounding, whatever the order in which the processor adds.
    rounded = np.rint(values).astype(np.int64)
    return int(rounded.sum()) / rounded.size
