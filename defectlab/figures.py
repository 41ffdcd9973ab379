"""One image explained: a figure a call, as Pillow images, which every notebook shows and `.save` writes."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from defectlab import paths
from defectlab.data.images import read_image
from defectlab.errors import InputError
from defectlab.explain import Box, NearestGood
from defectlab.pictures import VERDICTS, scale_of, views
from defectlab.predict import Detector, Prediction
from defectlab.results.charts import BAD, GOOD, LINE
from defectlab.results.record import Run

THIS = "#111111"
AROUND = 2.0  # a crop shows this many boxes on each side of its box: features see beyond their cell
DPI = 110


def image_figure(detector: Detector, found: Prediction) -> Image.Image:
    """Return image, anomaly map with its scale, overlay and outline of one predicted file, side by side.

    Raises:
        InputError: A prediction of an array, or a run without a scale for its maps.
    """
    low, high = scale_of(detector)
    pictures = views(detector, found)
    height, width = pictures[0].shape[:2]
    figure, axes = new_axes(4, (14, 3.3 * min(1.6, height / width) + 0.8))
    for axis, picture, title in zip(axes, pictures, ("image", "anomaly map", "overlay", "contour"), strict=True):
        axis.imshow(picture)
        axis.set_title(title)
        axis.set_axis_off()
    scale_bar(figure, axes, low, high, detector.pixel_threshold, "anomaly map")
    return rendered(figure)


def relative_figure(detector: Detector, found: Prediction) -> Image.Image:
    """Return image, anomaly map and overlay of one predicted file, map and score relative to their thresholds.

    1.0 is the threshold, and the scale is the same for all images: NOK is said exactly of scores above 1.0.

    Raises:
        InputError: A prediction of an array, or a run without thresholds.
    """
    limit, pixel = detector.image_threshold, detector.pixel_threshold
    if limit is None or pixel is None or not min(limit, pixel) > 0:
        raise InputError("This run has no thresholds above 0, so nothing can be shown relative to them.")
    low, high = scale_of(detector)
    image, heat, laid, _ = views(detector, found)
    height, width = image.shape[:2]
    figure, axes = new_axes(3, (12, 3.6 * min(1.6, height / width) + 0.8))
    shown = _relative(found.score / limit, bool(found.label))
    titles = ("image", f"anomaly score {shown}: {'NOK' if found.label else 'OK'}", "overlay")
    for axis, picture, title in zip(axes, (image, heat, laid), titles, strict=True):
        axis.imshow(picture)
        axis.set_title(title)
        axis.set_axis_off()
    scale_bar(figure, axes, low / pixel, high / pixel, 1.0, "anomaly map, 1.0 is the threshold")
    return rendered(figure)


def _relative(ratio: float, above: bool) -> str:
    """Return a score relative to its threshold with two digits, which never say 1.00 of one that is above it."""
    digits = 2
    while digits < 16 and (float(f"{ratio:.{digits}f}") > 1) != above:
        digits += 1
    return f"{ratio:.{digits}f}"


def scale_bar(figure: Any, axes: Any, low: float, high: float, threshold: float | None, label: str) -> None:
    """Draw the colours from `low` to `high` beside axes, with a line at the threshold."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(low, high), "inferno"), ax=axes, fraction=0.02, pad=0.01)
    bar.set_label(label)
    if threshold is not None:
        bar.ax.axhline(threshold, color=LINE, linewidth=2)


def score_figure(run: Run, found: Prediction) -> Image.Image:
    """Return one image's score on the line of the run's validation scores, with the threshold between them."""
    rows = run.scores("validation")
    threshold = run.record["thresholds"]["image"]["value"]
    figure, (axis,) = new_axes(1, (11, 2.4))
    for height, (label, name, colour) in enumerate(((0, "good", GOOD), (1, "defects", BAD))):
        scores = [row.score for row in rows if row.label == label]
        axis.plot(scores, np.full(len(scores), height), "|", color=colour, markersize=18, markeredgewidth=1.6)
        axis.text(0.005, height + 0.32, f"validation images: {name} ({len(scores)})", color=colour, fontsize=9,
                  transform=axis.get_yaxis_transform(), zorder=3,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    if threshold is not None:
        axis.axvline(threshold, color=LINE, linewidth=2, label=f"threshold {threshold:.4g}")
    axis.plot([found.score], [0.5], "D", color=THIS, markersize=9, label=f"this image {found.score:.4g}")
    axis.set(ylim=(-0.5, 1.7), yticks=[], xlabel="image score, higher is more anomalous")
    axis.set_title(f"score {found.score:.4g}: {VERDICTS[found.label]}", loc="left")
    axis.legend(loc="upper right", ncols=2, frameon=False, fontsize=9)
    axis.spines[["top", "left", "right"]].set_visible(False)
    return rendered(figure)


def patches_figure(image: str | Path, nearest: NearestGood) -> Image.Image:
    """Return an image's most anomalous patch and the good patches closest to it, each with what lies around it."""
    crops = [(paths.resolve(image), nearest.box, "most anomalous patch")]
    crops += [
        (patch.image_path, patch.box, f"{patch.image_path.name}\ndistance {patch.distance:.4g}")
        for patch in nearest.patches
    ]
    figure, axes = new_axes(len(crops), (2.3 * len(crops), 3.0))
    for number, (axis, (path, box, title)) in enumerate(zip(axes, crops, strict=True)):
        colour = BAD if number == 0 else GOOD
        _draw_crop(axis, read_image(path), box, colour)
        axis.set_title(title, fontsize=9, color=colour)
    return rendered(figure)


def _draw_crop(axis: Any, image: np.ndarray, box: Box, colour: str) -> None:
    """Draw the surroundings of a box, cut off at the image's edge, with the box outlined."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    wide, high = AROUND * (right - left), AROUND * (bottom - top)
    axis.imshow(image)
    axis.set(xlim=(left - wide - 0.5, right + wide - 0.5), ylim=(bottom + high - 0.5, top - high - 0.5))
    axis.set(xticks=[], yticks=[], facecolor="#dddddd")
    outline = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=2)
    axis.add_patch(outline)


def new_axes(count: int, size: tuple[float, float]) -> tuple[Any, Sequence[Any]]:
    """Return a figure without pyplot, whose state a notebook would show a second time, and its axes in a row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=DPI)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def rendered(figure: Any) -> Image.Image:
    """Return a figure as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")
