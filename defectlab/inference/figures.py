"""Pictures of predictions: an image with its map, nearest good patches, panels of many images."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from defectlab.inference.detector import Detector
from defectlab.inference.nearest_patches import Box, NearestGood
from defectlab.results.run.category_run import category_run, one_dataset
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.visualization.canvas import (
    BAD,
    GOOD,
    LINE,
    THIS,
    draw_strokes,
    image_row,
    new_figure,
    scale_bar,
    to_image,
)
from defectlab.visualization.overlays import four_views
from defectlab.visualization.panel import PanelRow, Scale, draw_panel
from defectlab.visualization.run_panel import COLUMNS, TILE, VERDICTS, ends_text, thumbnail, verdict_text
from defectlab.visualization.segmentation import segmentation_figure
from defectlab_runtime import names
from defectlab_runtime.errors import InputError
from defectlab_runtime.images import as_uint8, read_image
from defectlab_runtime.overlays import CONTOUR
from defectlab_runtime.prediction import Prediction
from defectlab_runtime.scores import ScoreRow

SURROUNDINGS = 2.0  # margin of a crop on each side in box sizes, since features depend on more than their cell


def image_figure(detector: Detector, found: Prediction) -> Image.Image:
    """Return a figure of image, anomaly map with scale, overlay and outline of one predicted file, side by side.

    Raises:
        InputError: A prediction of an array, or a run without a scale for its maps.
    """
    detector = detector.of(found)
    low, high = scale_of(detector)
    pictures = prediction_images(detector, found)
    height, width = pictures[0].shape[:2]
    panels = dict(zip(("image", "anomaly map", "overlay", "contour"), pictures, strict=True))
    figure, axes = image_row(panels, (14, 3.3 * min(1.6, height / width) + 0.8))
    scale_bar(figure, axes, low, high, detector.pixel_threshold, "anomaly map")
    return to_image(figure)


def relative_figure(detector: Detector, found: Prediction) -> Image.Image:
    """Return a figure of image, anomaly map and overlay of one file, map and score relative to their thresholds.

    1.0 is the threshold, and the scale is the same for all images: exactly the scores above 1.0 are titled NOK.

    Raises:
        InputError: A prediction of an array, or a run without thresholds.
    """
    detector = detector.of(found)
    limit, pixel = detector.image_threshold, detector.pixel_threshold
    if limit is None or pixel is None or not min(limit, pixel) > 0:
        raise InputError("This run has no thresholds above 0, so nothing can be shown relative to them.")
    low, high = scale_of(detector)
    image, heat, laid, _ = prediction_images(detector, found)
    height, width = image.shape[:2]
    ratio = _relative(found.score / limit, bool(found.label))
    panels = {"image": image, f"anomaly score {ratio}: {'NOK' if found.label else 'OK'}": heat, "overlay": laid}
    figure, axes = image_row(panels, (12, 3.6 * min(1.6, height / width) + 0.8))
    scale_bar(figure, axes, low / pixel, high / pixel, 1.0, "anomaly map, 1.0 is the threshold")
    return to_image(figure)


def _relative(ratio: float, above: bool) -> str:
    """Format a relative score with two digits, or as many more as it takes to show whether it is above 1."""
    digits = 2
    while digits < 16 and (float(f"{ratio:.{digits}f}") > 1) != above:
        digits += 1
    return f"{ratio:.{digits}f}"


def score_figure(run: Run, found: Prediction) -> Image.Image:
    """Return a figure of one image's score among the run's validation scores, with the threshold.

    For a run that serves several categories these are of the image's category.
    """
    if run.record.categories and found.category is not None:
        run = category_run(run, found.category)
    one_dataset(run, "this figure")
    rows = run.scores("validation")
    threshold = run.record.thresholds.image.value
    figure, (axis,) = new_figure((11, 2.4))
    for height, (label, name, colour) in enumerate(((0, "good", GOOD), (1, "defects", BAD))):
        scores = [row.score for row in rows if row.label == label]
        draw_strokes(axis, scores, height, colour, 18, 1.6)
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
    return to_image(figure)


def patches_figure(image: str | Path, nearest: NearestGood) -> Image.Image:
    """Return a figure of an image's most anomalous patch and the nearest good patches, each with its surroundings."""
    crops = [(paths.resolve(image), nearest.box, "most anomalous patch")]
    for patch in nearest.patches:
        turned = f", rotated by {patch.degrees:g}°" if patch.degrees else ""
        title = f"{names.figure(patch.image_path.name, 40)}\ndistance {patch.distance:.4g}{turned}"
        crops.append((patch.image_path, patch.box, title))
    figure, axes = new_figure((2.3 * len(crops), 3.0), columns=len(crops))
    for number, (axis, (path, box, title)) in enumerate(zip(axes, crops, strict=True)):
        colour = BAD if number == 0 else GOOD
        _draw_crop(axis, read_image(path, nearest.bit_depth), box, colour)
        axis.set_title(title, fontsize=9, color=colour)
    return to_image(figure)


def _draw_crop(axis: Any, image: np.ndarray, box: Box, colour: str) -> None:
    """Draw a box outlined on its image, zoomed to the box and its surroundings."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    wide, high = SURROUNDINGS * (right - left), SURROUNDINGS * (bottom - top)
    axis.imshow(image)
    axis.set(xlim=(left - wide - 0.5, right + wide - 0.5), ylim=(bottom + high - 0.5, top - high - 0.5))
    axis.set(xticks=[], yticks=[], facecolor="#dddddd")
    outline = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=2)
    axis.add_patch(outline)


def prediction_panel(detector: Detector, predictions: Sequence[Prediction], tile: int = TILE) -> Image.Image:
    """Return a picture with a row for each prediction of an image file, all on the detector's colour scale.

    Raises:
        InputError: A prediction of an array, or a run without a scale.
    """
    low, high = scale_of(detector)
    rows = []
    for found in predictions:
        row = ScoreRow(str(found.image_path), "predict", "", -1, found.score, found.label)
        detail, wrong = verdict_text(row, detector.of(found).image_threshold)
        rows.append(PanelRow(prediction_images(detector, found), paths.relative(row.image_path), detail, wrong))
    legend = [(CONTOUR, "found: map above the pixel threshold")] if detector.pixel_threshold is not None else []
    ends = ends_text("range of the validation images" if (low, high) == detector.map_range else "")
    scale = Scale(low, high, detector.pixel_threshold, ends)
    return Image.fromarray(draw_panel(rows, COLUMNS, detector.model_name, legend, scale, tile))


def prediction_images(detector: Detector, found: Prediction) -> list[np.ndarray]:
    """Return image, map, overlay and outline of one predicted file, (H, W, 3) uint8 each, at most 512 pixels a side.

    Raises:
        InputError: A prediction of an array, whose pixels are not at hand, or a run without a scale.
    """
    if found.image_path is None:
        raise InputError("This picture needs the image's file: predict a file instead of an array.")
    detector = detector.of(found)
    low, high = scale_of(detector)
    image = thumbnail(read_image(found.image_path, detector.bit_depth), 2 * TILE)
    size = (image.shape[1], image.shape[0])
    anomaly_map = np.asarray(Image.fromarray(found.anomaly_map).resize(size, Image.Resampling.BILINEAR))
    outlines = []
    if found.mask is not None:
        outlines.append((np.asarray(Image.fromarray(found.mask).resize(size, Image.Resampling.NEAREST)), CONTOUR))
    return four_views(image, anomaly_map, low, high, outlines)


def scale_of(detector: Detector) -> tuple[float, float]:
    """Return the detector's colour scale of heat maps, `Detector.heat_range`.

    Raises:
        InputError: The run had no validation images to take it from.
    """
    low, high = detector.heat_range
    if not math.isfinite(low):
        raise InputError("This run had no validation images, so its maps have no scale to be shown on.")
    return low, high


def prediction_figure(detector: Detector, found: Prediction) -> Image.Image:
    """Return a figure of image, heat map, opened mask and its boundaries of one predicted file, side by side.

    Raises:
        InputError: A prediction of an array, or a run without a scale or a threshold for its maps.
    """
    if found.image_path is None or found.mask is None:
        raise InputError("This figure needs the image's file, and a run with a map threshold.")
    detector = detector.of(found)
    limit = detector.image_threshold
    against = "no threshold" if limit is None else f"threshold {limit:.4g}"
    title = f"score {found.score:.4g}, {against}: {VERDICTS[found.label]}"
    scale = (*scale_of(detector), detector.pixel_threshold)
    image = as_uint8(read_image(found.image_path, detector.bit_depth))
    return segmentation_figure(image, found.anomaly_map, found.mask, scale, title)


def prediction_name(detector: Detector, found: Prediction, number: int) -> str:
    """Return the file name of a prediction's figure: name of the training dataset or model, number, and score."""
    trained_on = names.path(detector.dataset or detector.model_name)
    return f"{trained_on}_pre_{number}_{found.score:.4g}.png"
