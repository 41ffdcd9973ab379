"""Pictures of a run's results, made from the raw record of the run alone, without the model."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from defectlab.models.registry import model_info
from defectlab.results.curves import by_score
from defectlab.results.run.category_run import category_runs
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.visualization.overlays import TRUTH, four_views, save_image
from defectlab.visualization.panel import PanelRow, Scale, draw_panel
from defectlab_runtime.decision import round_down
from defectlab_runtime.errors import DataError, InputError
from defectlab_runtime.geometry import Frame, resize_nearest
from defectlab_runtime.images import as_uint8, read_image
from defectlab_runtime.normalization import heat_range
from defectlab_runtime.overlays import CONTOUR
from defectlab_runtime.scores import ScoreRow

logger = logging.getLogger(__name__)

PICTURES = "pictures.png"
TILE = 256
MAX_CATEGORIES = 4  # in one picture of a run that serves more
VERDICTS = {1: "anomalous", 0: "good", -1: "undecided"}
COLUMNS = ("image", "anomaly map", "overlay", "found")


def save_panel(run: Run) -> Path | None:
    """Write `run_panel` as `pictures.png` into the run folder and return its path; None if it cannot be made.

    Pictures are optional: an unreadable image or a full disk causes a warning and no error.
    """
    try:
        picture = run_panel(run)
        return None if picture is None else save_image(run.folder / PICTURES, picture)
    except (DataError, OSError) as error:
        logger.warning("No pictures of this run: %s", error)
        return None


@dataclass(frozen=True)
class ShownImages:
    """The test images of a run whose maps were kept, with everything needed to draw them on the run's common scale.

    `rows` and `maps` (n, h, w), `masks` (n, h, w) or None, go together.
    """

    rows: Sequence[ScoreRow]
    maps: np.ndarray
    masks: np.ndarray | None
    frame: Frame
    bit_depth: int | None
    scale: Scale
    image_threshold: float | None

    @classmethod
    def of(cls, run: Run) -> "ShownImages | None":
        """Return the shown images of a run; None if it has no test images or no maps of them were kept."""
        maps, rows = run.maps("test"), run.scores("test")
        if maps is None or not rows:
            return None
        retained = (run.record.maps and run.record.maps.rows) or range(len(rows))
        frame, bit_depth = Frame.from_record(run.record.preprocessing.options()), run.record.preprocessing.bit_depth
        low, high, ends = map_scale(run)
        image, pixel = run.record.thresholds.image.value, run.record.thresholds.pixel.value
        scale = Scale(low, high, pixel, ends)
        return cls([rows[place] for place in retained], maps, run.masks("test"), frame, bit_depth, scale, image)

    def tiles(self, index: int, truth: bool = False) -> list[np.ndarray]:
        """Return image, map, overlay and outlines of the image at `index` of `rows`, (H, W, 3) uint8 each.

        With `truth` the ground-truth mask comes after the image, black for a good one, where the dataset has masks.

        Raises:
            DataError: The image cannot be read.
        """
        row, low, high, threshold = self.rows[index], self.scale.low, self.scale.high, self.scale.threshold
        whole = read_image(paths.resolve(row.image_path), self.bit_depth)
        image, size = thumbnail(whole), (whole.shape[0], whole.shape[1])
        found = on_image(self.frame, self.maps[index], image, size)
        outlines, marked = [], np.zeros(image.shape[:2], dtype=np.bool_)
        if self.masks is not None and row.label == 1:
            marked = on_image(self.frame, self.masks[index], image, size) > 0.5
            outlines.append((marked, TRUTH))
        if threshold is not None:
            outlines.append((found > round_down(threshold), CONTOUR))
        views = four_views(image, found, low, high, outlines)
        if truth and self.masks is not None:
            views.insert(1, np.repeat(marked[..., None], 3, axis=2) * np.uint8(255))
        return views

    def verdict(self, index: int) -> tuple[str, bool]:
        """Return score, threshold and decision of an image as text, and whether the decision is wrong."""
        return verdict_text(self.rows[index], self.image_threshold)


def run_panel(run: Run) -> np.ndarray | None:
    """Return the most informative test images of a run as one (H, W, 3) uint8 picture.

    A typical and the highest-scoring good image, the lowest-scoring and a typical defect: image, map on the common
    scale of the run's validation maps, overlay, and outlines of what was found and of the ground truth.
    None where there are no test images or no maps of them were kept. Of a run that serves several categories the first
    few of these, one below the other, each at its own thresholds.

    Raises:
        DataError: One of the images cannot be read.
    """
    if run.record.categories:
        panels = [panel for one in category_runs(run)[:MAX_CATEGORIES] if (panel := run_panel(one)) is not None]
        return stacked(panels) if panels else None
    shown = ShownImages.of(run)
    if shown is None:
        return None
    drawn = [
        PanelRow(shown.tiles(index), f"{why}: {shown.rows[index].image_path}", *shown.verdict(index))
        for why, index in telling_rows(shown.rows)
    ]
    heading = f"{run.model} on {run.dataset}: {run.record.name}"
    legend = [(CONTOUR, "found: map above the pixel threshold")] if shown.scale.threshold is not None else []
    legend += [(TRUTH, "ground truth")] if shown.masks is not None else []
    return draw_panel(drawn, COLUMNS, heading, legend, shown.scale, TILE)


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return pictures (H, W, 3) one below the other, narrower ones with the colour of their corner to the right."""
    width = max(picture.shape[1] for picture in pictures)
    wide = []
    for picture in pictures:
        whole = np.broadcast_to(picture[0, 0], (picture.shape[0], width, 3)).copy()
        whole[:, : picture.shape[1]] = picture
        wide.append(whole)
    return np.concatenate(wide)


def telling_rows(rows: Sequence[ScoreRow]) -> list[tuple[str, int]]:
    """Choose the most informative rows: at most two good images, two defects and two unlabelled images, by position.

    >>> good = [ScoreRow(f"{n}.png", "test", "good", 0, score, 0) for n, score in enumerate([3.0, 1.0, 2.0])]
    >>> telling_rows(good)
    [('a typical good image', 2), ('the highest-scoring good image', 0)]
    """
    order = by_score(rows)
    good = [index for index in order if rows[index].label == 0]
    bad = [index for index in order if rows[index].label == 1]
    other = [index for index in order if rows[index].label == -1]
    chosen: list[tuple[str, int]] = []
    if good:
        chosen += [("a typical good image", good[(len(good) - 1) // 2]), ("the highest-scoring good image", good[-1])]
    if bad:
        chosen += [("the lowest-scoring defect", bad[0]), ("a typical defect", bad[len(bad) // 2])]
    if other:
        chosen += [("the lowest-scoring image", other[0]), ("the highest-scoring image", other[-1])]
    # an image that is both typical and extreme is named by the extreme
    last = {index: why for why, index in chosen if not why.startswith("a typical")}
    return list(dict.fromkeys((last.get(index, why), index) for why, index in chosen))


def map_scale(run: Run) -> tuple[float, float, str]:
    """Return the ends of a run's colour scale, as `Detector.heat_range`, and a text that describes them.

    Without validation maps the test maps are used.
    """
    for split in ("validation", "test"):
        maps = run.maps(split)
        if maps is not None and maps.size:
            relative = model_info(run.record.experiment.model_name).relative_maps
            threshold = run.record.thresholds.pixel.value
            ends = _finite_ends(maps)
            shown = heat_range(*ends, threshold, relative)
            return *shown, ends_text(f"range of the {split} images" if shown == ends else "")
    raise InputError(f"{run.folder} has no maps any more, so its pictures have no scale.")


def _finite_ends(maps: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest finite value of maps; (0, 1) if there is none."""
    ends = float(maps.min()), float(maps.max())
    if np.isfinite(ends).all():
        return ends
    finite = [part for one in maps if (part := one[np.isfinite(one)]).size]
    return (float(min(map(np.min, finite))), float(max(map(np.max, finite)))) if finite else (0.0, 1.0)


def ends_text(which: str) -> str:
    """Return the text that stands before a map's colour scale; empty for a scale that is not a range of images."""
    return f"map, {which or 'from 0 to twice the threshold'}:"


def verdict_text(row: ScoreRow, threshold: float | None) -> tuple[str, bool]:
    """Return score, threshold and decision of a row as text, and whether the decision is wrong."""
    limit = "no threshold" if threshold is None else f"threshold {threshold:.4g}"
    wrong = -1 not in (row.label, row.pred_label) and row.label != row.pred_label
    mistake = {(True, 0): " (a false alarm)", (True, 1): " (missed)"}.get((wrong, row.label), "")
    kind = f"{row.defect}, " if row.defect else ""
    return f"{kind}score {row.score:.4g}, {limit}: {VERDICTS[row.pred_label]}{mistake}", wrong


def thumbnail(image: np.ndarray, size: int = TILE) -> np.ndarray:
    """Return an image, uint8 or float in [0, 1], as uint8, shrunk to at most `size` pixels a side."""
    pixels = as_uint8(image)
    small = Image.fromarray(pixels)
    scale = size / max(small.size)
    if scale >= 1:
        return pixels
    return np.asarray(small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale)))))


def on_image(frame: Frame, grid: np.ndarray, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Map an (h, w) map or mask of the model's input to an image, which may be shown smaller than its `size`.

    Returns (H, W) float32, NaN outside a crop.
    """
    values, shown = np.asarray(grid, dtype=np.float32), (image.shape[0], image.shape[1])
    if frame.region is None or shown == size:
        return frame.to_image(values, shown)
    return resize_nearest(frame.to_image(values, size), shown)  # regions are in pixels of the whole image
