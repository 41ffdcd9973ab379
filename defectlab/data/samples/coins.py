"""The sample `coins`: photographed gravel, brick and grass, with coins, foreign patches and scratches as defects.

Cues that a detector must not use are removed: training and test images come from disjoint columns of each
photograph; light, flips and enlargement vary alike in both; and pieces of the same texture are pasted into good
images exactly as foreign ones are into anomalous images, with the same shapes, blending and search for a fitting seam.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from defectlab.data.samples.compose import (
    SIZE,
    Box,
    Lighting,
    Overlay,
    Plane,
    Scene,
    Shape,
    alpha,
    overlay_content,
    render,
    render_mask,
    render_surface,
)
from defectlab.data.samples.photographs import PHOTOGRAPHS, Grey, load_photograph
from defectlab.data.samples.random_stream import RandomStream
from defectlab.data.samples.store import Picture

SURFACES = ("gravel", "brick", "grass")
KINDS = ("coin", "patch", "scratch")
COUNTS = {"train": 90, "good": 20, "per_kind": 15}
# Every photograph is 512 x 512; eight columns between the regions belong to neither.
LEFT_TRAINS = {"train": (0, 0, 292, 512), "test": (300, 0, 512, 512)}
RIGHT_TRAINS = {"train": (220, 0, 512, 512), "test": (0, 0, 212, 512)}
REGIONS = {"gravel": LEFT_TRAINS, "brick": LEFT_TRAINS, "grass": RIGHT_TRAINS}
DIFFICULTIES = ("easy", "medium", "hard", "easy", "medium")

# Centre and radius of the discs that lie inside the 24 coins of the photograph, found once by watershed segmentation.
COIN_DISCS = (
    *((335, 43, 27), (155, 51, 22), (215, 51, 21), (277, 53, 18), (45, 54, 19), (99, 56, 17)),
    *((271, 119, 23), (44, 124, 19), (205, 124, 18), (336, 125, 18), (102, 126, 17), (153, 127, 17)),
    *((348, 186, 30), (212, 193, 22), (272, 192, 19), (102, 196, 20), (44, 198, 18), (154, 198, 18)),
    *((46, 260, 27), (170, 261, 25), (300, 264, 24), (244, 263, 22), (114, 265, 20), (357, 267, 20)),
)
# Where the other photographs show nothing but one material: wood, fur, paper. Not one of the three surfaces: a piece
# of gravel on grass is, patch by patch, as good as the gravel of other good images.
FOREIGN = (("coffee", 484, 80, 600, 400), ("chelsea", 70, 5, 290, 80), ("text", 0, 0, 448, 172))
METAL = ("coins", 0, 80, 384, 96)  # the bare tray between two rows of coins


@dataclass(frozen=True)
class Item:
    """One image of the sample: its destination, its kind and the scene that it is rendered from."""

    folder: str
    stem: str
    surface: str
    defect: str | None
    difficulty: str | None
    scene: Scene


def plan(seed: int, photographs: Mapping[str, Grey]) -> Iterator[Item]:
    """Yield the images of the sample in a fixed order. Each has its own random stream."""
    for index in range(COUNTS["train"]):
        yield _item(seed, photographs, "train", "train/good", index, decoy=index // 3 % 3 == 0)
    for index in range(COUNTS["good"]):
        yield _item(seed, photographs, "test", "test/good", index, decoy=index // 3 % 3 != 2)
    for kind in KINDS:
        for index in range(COUNTS["per_kind"]):
            yield _item(seed, photographs, "test", f"test/{kind}", index, defect=kind)


def pictures(seed: int, photographs: Mapping[str, Grey] | None = None) -> Iterator[Picture]:
    """Yield every image and mask of the sample; `photographs` replaces those of scikit-image."""
    photographs = photographs or {name: load_photograph(name) for name in PHOTOGRAPHS}
    for item in plan(seed, photographs):
        about = {
            "surface": item.surface,
            "difficulty": item.difficulty,
            "pasted": bool(item.scene.overlays),
            "boxes": [[box.photo, box.left, box.top, box.right, box.bottom] for box in item.scene.boxes()],
        }
        yield Picture(f"{item.folder}/{item.stem}.png", render(item.scene, photographs), about)
        if item.defect:
            yield Picture(f"ground_truth/{item.defect}/{item.stem}_mask.png", render_mask(item.scene))


def source_records() -> list[dict[str, str]]:
    """Return the origin and licence of each photograph used."""
    return [photo.record() for photo in PHOTOGRAPHS.values()]


def _item(
    seed: int,
    photographs: Mapping[str, Grey],
    region: str,
    folder: str,
    index: int,
    *,
    decoy: bool = False,
    defect: str | None = None,
) -> Item:
    stream = RandomStream(seed, f"coins/{folder}/{index}")
    surface = SURFACES[index % len(SURFACES)]
    scene = _bare_scene(stream, surface, region)
    difficulty = DIFFICULTIES[index // len(SURFACES) % len(DIFFICULTIES)] if defect else None
    if decoy or defect:
        kind = defect or KINDS[(index + index // len(SURFACES)) % len(KINDS)]
        shape, reach, centre = _outline(stream, kind, difficulty or stream.pick(DIFFICULTIES))
        if defect == "coin":
            overlay = _coin(stream, shape, reach, centre, difficulty or "")
        elif defect == "scratch":
            overlay = _scratch(stream, shape, reach, centre, difficulty or "")
        else:
            canvas = render_surface(scene, photographs)
            candidates = [
                _foreign(stream, shape, reach, centre, difficulty or "")
                if defect
                else _same(stream, scene, shape, reach, centre, REGIONS[surface][region])
                for _ in range(12)
            ]
            overlay = best_seam(canvas, candidates, photographs)
        scene = replace(scene, overlays=(overlay,))
    return Item(folder, f"{index:03d}", surface, defect, difficulty, scene)


def _bare_scene(stream: RandomStream, surface: str, region: str) -> Scene:
    left, top, right, bottom = REGIONS[surface][region]
    side = 180 + stream.integer(29)
    x, y = left + stream.integer(right - left - side + 1), top + stream.integer(bottom - top - side + 1)
    # The pavement recedes upwards in the photograph, so it is never turned upside down.
    flips = (stream.flag(), stream.flag() and surface != "brick")
    dx, dy = stream.direction()
    slope = stream.uniform(0.0, 0.25)
    light = Lighting(stream.uniform(0.85, 1.15), (slope * dx, slope * dy), stream.uniform(-10, 10))
    return Scene(Box(surface, x, y, x + side, y + side), flips, (), light)


def _outline(stream: RandomStream, kind: str, difficulty: str) -> tuple[Shape, float, tuple[float, float]]:
    """Sample the outline of an object of this kind: its shape, half the side of its square, and its centre."""
    low, high = {
        "coin": {"easy": (34, 42), "medium": (27, 34), "hard": (14, 19)},
        "patch": {"easy": (52, 64), "medium": (42, 52), "hard": (24, 32)},
        "scratch": {"easy": (85, 110), "medium": (70, 90), "hard": (38, 54)},
    }[kind][difficulty]
    reach = stream.uniform(low, high)
    margin = reach + 3
    cx, cy = stream.uniform(margin, SIZE - margin), stream.uniform(margin, SIZE - margin)
    if kind == "coin":
        shape = Shape("disc", ((cx, cy),), (reach - 1,))
    elif kind == "scratch":
        shape = _scratch_shape(stream, cx, cy, reach)
    elif stream.flag():
        half = (0.75 * reach, stream.uniform(0.4, 0.65) * reach)
        shape = Shape("quad", ((cx, cy),), half, stream.direction())
    else:
        points, radii = [], []
        for _ in range(5):
            radius = stream.uniform(0.35, 0.55) * reach
            (dx, dy), far = stream.direction(), stream.uniform(0.2, 1.0) * (reach - 1 - radius)
            points.append((cx + far * dx, cy + far * dy))
            radii.append(radius)
        shape = Shape("blob", tuple(points), tuple(radii))
    return shape, reach, (cx, cy)


def _scratch_shape(stream: RandomStream, cx: float, cy: float, reach: float) -> Shape:
    width = 1.0 + reach * stream.uniform(0.03, 0.045)
    dx, dy = stream.direction()
    bend = stream.uniform(-0.35, 0.35) * reach
    ends = 0.94 * reach
    points = ((cx - ends * dx, cy - ends * dy), (cx - bend * dy, cy + bend * dx), (cx + ends * dx, cy + ends * dy))
    return Shape("line", points, (width,))


def _coin(stream: RandomStream, shape: Shape, reach: float, centre: tuple[float, float], difficulty: str) -> Overlay:
    x, y, radius = stream.pick([disc for disc in COIN_DISCS if 1.7 * disc[2] >= reach])
    box = Box("coins", x - radius, y - radius, x + radius + 1, y + radius + 1)
    match, contrast, offset = {"easy": (0.5, 1.3, 55), "medium": (0.6, 1.3, 50), "hard": (0.9, 1.1, 20)}[difficulty]
    return Overlay(box, shape, centre, reach, stream.direction(), contrast=contrast, match=match, offset=offset)


def _foreign(stream: RandomStream, shape: Shape, reach: float, centre: tuple[float, float], difficulty: str) -> Overlay:
    photo, left, top, right, bottom = stream.pick(FOREIGN)
    # Half a source pixel per image pixel or more, as for the surfaces, so that sharpness does not tell them apart.
    side = min(int(2 * reach * stream.uniform(0.62, 0.8)) + 1, bottom - top, right - left)
    x, y = left + stream.integer(right - left - side + 1), top + stream.integer(bottom - top - side + 1)
    match, offset = {"easy": (0.8, 60), "medium": (0.8, 48), "hard": (1.0, 15)}[difficulty]
    return Overlay(
        Box(photo, x, y, x + side, y + side),
        shape,
        centre,
        reach,
        stream.direction(),
        flips=(stream.flag(), stream.flag()),
        match=match,
        offset=offset if stream.flag() else -offset,
    )


def _scratch(stream: RandomStream, shape: Shape, reach: float, centre: tuple[float, float], difficulty: str) -> Overlay:
    photo, left, top, right, bottom = METAL
    side = bottom - top
    x = left + stream.integer(right - left - side + 1)
    depth = {"easy": 105, "medium": 95, "hard": 70}[difficulty] * (1 if stream.flag() else -1)
    return Overlay(Box(photo, x, top, x + side, bottom), shape, centre, reach, match=1.0, offset=depth)


def _same(
    stream: RandomStream,
    scene: Scene,
    shape: Shape,
    reach: float,
    centre: tuple[float, float],
    region: Sequence[int],
) -> Overlay:
    """Return an overlay from the same photograph and region, at the scale and flips of the surface."""
    left, top, right, bottom = region
    surface = scene.surface
    side = max(4, round(2 * reach * (surface.right - surface.left) / SIZE))
    x, y = left + stream.integer(right - left - side + 1), top + stream.integer(bottom - top - side + 1)
    box = Box(surface.photo, x, y, x + side, y + side)
    return Overlay(box, shape, centre, reach, flips=scene.flips, match=1.0)


def best_seam(canvas: Plane, candidates: Sequence[Overlay], photographs: Mapping[str, Grey]) -> Overlay:
    """Return the candidate whose values differ least from the surface along its outline (in grey levels, squared).

    The same search serves good and anomalous images; without it mortar lines would end at every seam.
    """
    weight = alpha(candidates[0].shape)
    y, x = np.nonzero((weight > 0) & (weight < 1))
    below = np.rint(canvas[y, x]).astype(np.int64)

    def misfit(overlay: Overlay) -> int:
        content = np.rint(overlay_content(overlay, photographs, x, y)).astype(np.int64)
        return int(((content - below) ** 2).sum())

    return min(candidates, key=misfit)
