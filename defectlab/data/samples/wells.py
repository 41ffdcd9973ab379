"""The sample `wells`: small metal wells in sand, drawn, with and without spills, in the casting-well layout.

Only additions, products and square roots are used, as in `compose`, so that the pixels are the same everywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectlab.data.samples.random_stream import RandomStream
from defectlab.data.samples.store import Picture
from defectlab.utils.validation import check_integer

Plane = NDArray[np.float64]
Bounds = tuple[int, int]

SPILLED_SHARE = 4  # one test image in four
# Width and height in pixels, smallest and largest, by folder: crops of a line's camera are not all alike.
SIZES: dict[str, tuple[Bounds, Bounds]] = {
    "train": ((43, 57), (24, 40)),
    "proliv": ((47, 51), (27, 30)),
    "test/imgs": ((39, 72), (23, 40)),
}
ANNOTATION = "test/test_annotation.txt"
SOURCE = {
    "name": "wells",
    "shows": "wells of metal in sand, some with spills",
    "origin": "drawn by defectlab/data/samples/wells.py",
    "licence": "Apache-2.0",
    "file": "",
}


def check(train: int, proliv: int, test: int) -> None:
    """Validate the counts of images.

    Raises:
        OptionError: A count that makes no dataset, with what is allowed.
    """
    for name, value, low in (("train", train, 10), ("proliv", proliv, 1), ("test", test, SPILLED_SHARE)):
        check_integer("wells", name, value, low=low)


def pictures(seed: int, train: int, proliv: int, test: int) -> Iterator[Picture]:
    """Yield train/ (good), proliv/ (spilled) and test/imgs/ (both), (H, W, 3) each."""
    spilled = labels(seed, test)
    for folder, counted in (("train", [0] * train), ("proliv", [1] * proliv), ("test/imgs", spilled)):
        for index, label in enumerate(counted):
            stream = RandomStream(seed, f"wells/{folder}/{index}")
            widths, heights = SIZES[folder]
            size = (_between(stream, heights), _between(stream, widths))
            yield Picture(_path(folder, index), draw(stream, size, bool(label)), {"label": label})


def annotation(seed: int, test: int) -> str:
    """Return the text of `test/test_annotation.txt`: a line "name label" for each test image, 1 is a spill."""
    names = (_path("test/imgs", index).rsplit("/", 1)[1] for index in range(test))
    return "".join(f"{name} {label}\n" for name, label in zip(names, labels(seed, test), strict=True))


def labels(seed: int, test: int) -> list[int]:
    """Return the labels of the test images in their order."""
    bad = test // SPILLED_SHARE
    return RandomStream(seed, "wells/labels").shuffled([1] * bad + [0] * (test - bad))


@dataclass(frozen=True)
class Well:
    """A well's outline as an ellipse, with centre and half axes in pixels."""

    x: float
    y: float
    half_width: float
    half_height: float

    def distance(self, size: tuple[int, int]) -> Plane:
        """Return each pixel's approximate distance (H, W) from the well's edge in pixels, negative inside."""
        across, down = grid(size)
        u, v = (across - self.x) / self.half_width, (down - self.y) / self.half_height
        return (np.sqrt(u * u + v * v) - 1.0) * min(self.half_width, self.half_height)


def draw(stream: RandomStream, size: tuple[int, int], spilled: bool) -> NDArray[np.uint8]:
    """Draw a picture (H, W, 3) of one well, with or without spills, at `size` (height, width)."""
    height, width = size
    well = Well(
        width * stream.uniform(0.47, 0.53),
        height * stream.uniform(0.47, 0.53),
        width * stream.uniform(0.31, 0.36),
        height * stream.uniform(0.31, 0.36),
    )
    outside = well.distance(size)
    sand = _sand(stream, size)
    metal = _metal(stream, size, well)
    rim = 0.45 * covered(np.abs(outside - 1.0), 1.6)  # the shadow of the edge
    picture = tinted(sand * (1.0 - rim), (1.0, 0.95, 0.88))
    if spilled:
        spill = _spill(stream, size, well)
        shade = stream.uniform(0.75, 1.0) * metal + 6.0 * smooth(stream, size, 5)
        picture = blend(picture, tinted(shade, (0.99, 1.0, 1.0)), spill)
    wall = tinted(np.full(size, stream.uniform(45.0, 70.0)) + 5.0 * smooth(stream, size, 3), (1.0, 0.96, 0.92))
    picture = blend(picture, wall, covered(outside, 1.0))
    level = stream.uniform(0.6, 2.6)  # how far below the edge the metal stands
    picture = blend(picture, tinted(metal, (0.99, 1.0, 1.0)), covered(outside + level, 1.2))
    picture = picture + 4.0 * noise(stream, size)[..., None]
    return np.rint(np.clip(picture, 0.0, 255.0)).astype(np.uint8)


def _sand(stream: RandomStream, size: tuple[int, int]) -> Plane:
    """Return the brightness of sand with grains, lighter and darker areas, and a few bright specks."""
    sand = stream.uniform(88.0, 118.0) + 13.0 * smooth(stream, size, 4) + 7.0 * smooth(stream, size, 11)
    sand = sand + 7.0 * noise(stream, size)
    across, down = grid(size)
    for _ in range(stream.integer(4)):
        x, y = stream.uniform(0.0, size[1]), stream.uniform(0.0, size[0])
        speck = covered(np.sqrt((across - x) ** 2 + (down - y) ** 2) - stream.uniform(0.3, 1.1), 1.0)
        sand = sand + stream.uniform(20.0, 60.0) * speck
    return sand


def _metal(stream: RandomStream, size: tuple[int, int], well: Well) -> Plane:
    """Return the brightness of metal with a light gradient, ripples, oxide flakes and one reflection."""
    across, down = grid(size)
    x, y = stream.direction()
    slope = ((across - well.x) * x + (down - well.y) * y) / well.half_width
    metal = stream.uniform(160.0, 195.0) + stream.uniform(5.0, 22.0) * slope + 9.0 * smooth(stream, size, 6)
    for _ in range(stream.integer(3)):
        metal = metal - stream.uniform(15.0, 50.0) * _disc(stream, size, well, (0.6, 1.8))
    return metal + stream.uniform(15.0, 70.0) * _disc(stream, size, well, (1.5, 3.5))


def _disc(stream: RandomStream, size: tuple[int, int], well: Well, radii: tuple[float, float]) -> Plane:
    """Return the coverage 0 .. 1 of a soft disc at a random position in the well."""
    across, down = grid(size)
    x, y = stream.direction()
    far = stream.uniform(0.0, 0.7)
    centre = (well.x + far * x * well.half_width, well.y + far * y * well.half_height)
    return covered(np.sqrt((across - centre[0]) ** 2 + (down - centre[1]) ** 2) - stream.uniform(*radii), 2.0)


def _spill(stream: RandomStream, size: tuple[int, int], well: Well) -> Plane:
    """Return the coverage 0 .. 1 of spilled metal: one or two tongues across the edge, and drops."""
    across, down = grid(size)
    nearest = np.full(size, np.inf)
    for _ in range(1 + stream.integer(2)):
        x, y = stream.direction()
        place = [well.x + 0.97 * x * well.half_width, well.y + 0.97 * y * well.half_height]
        radius, steps = stream.uniform(2.2, 5.4), 2 + stream.integer(6)
        side = stream.uniform(-0.8, 0.8)
        for _ in range(steps):
            nearest = np.minimum(nearest, np.sqrt((across - place[0]) ** 2 + (down - place[1]) ** 2) - radius)
            place = [place[0] + 1.5 * (x - side * y), place[1] + 1.5 * (y + side * x)]
            radius = radius * stream.uniform(0.75, 1.05)
    for _ in range(stream.integer(3)):
        x, y = stream.direction()
        far = stream.uniform(1.15, 1.45)
        drop = (well.x + far * x * well.half_width, well.y + far * y * well.half_height)
        radius = stream.uniform(0.5, 1.4)
        nearest = np.minimum(nearest, np.sqrt((across - drop[0]) ** 2 + (down - drop[1]) ** 2) - radius)
    return covered(nearest, 1.5)


def grid(size: tuple[int, int]) -> tuple[Plane, Plane]:
    """Return x and y (H, W) of the pixels' centres."""
    height, width = size
    down, across = np.mgrid[0:height, 0:width]
    return across + 0.5, down + 0.5


def covered(distance: Plane, softness: float) -> Plane:
    """Return 1 inside, 0 outside and a ramp of `softness` pixels around distance 0."""
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def noise(stream: RandomStream, size: tuple[int, int]) -> Plane:
    """Return independent uniform noise in [-1, 1) for each pixel (H, W)."""
    return np.array([stream.uniform(-1.0, 1.0) for _ in range(size[0] * size[1])]).reshape(size)


def smooth(stream: RandomStream, size: tuple[int, int], cells: int) -> Plane:
    """Return values in [-1, 1) (H, W) that change over a `cells`-th of the picture: bilinear between drawn points."""
    points = noise(stream, (cells + 1, cells + 1))
    across, down = grid(size)
    x, y = across * (cells / size[1]), down * (cells / size[0])
    left, top = np.minimum(x.astype(int), cells - 1), np.minimum(y.astype(int), cells - 1)
    right_share, low_share = x - left, y - top
    upper = points[top, left] * (1.0 - right_share) + points[top, left + 1] * right_share
    lower = points[top + 1, left] * (1.0 - right_share) + points[top + 1, left + 1] * right_share
    return upper * (1.0 - low_share) + lower * low_share


def tinted(plane: Plane, tint: Sequence[float]) -> Plane:
    """Convert a plane (H, W) to colours (H, W, 3) by multiplying it with a tint."""
    return plane[..., None] * np.array(tint)


def blend(below: Plane, above: Plane, share: Plane) -> Plane:
    """Blend colours `above` (H, W, 3) over `below` with the weights `share` (H, W)."""
    return below * (1.0 - share[..., None]) + above * share[..., None]


def _between(stream: RandomStream, bounds: Bounds) -> int:
    return bounds[0] + stream.integer(bounds[1] - bounds[0] + 1)


def _path(folder: str, index: int) -> str:
    return f"{folder}/{index:04d}.png"
