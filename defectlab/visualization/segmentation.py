"""Figures of one image's segmentation, as UAD's scripts draw them: image, ground truth, heat map, mask, boundaries."""

import glob
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from defectlab.results.run.category_run import one_dataset
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.utils.files import replacing
from defectlab.visualization.canvas import image_row, scale_bar, to_image
from defectlab.visualization.run_panel import ShownImages, on_image
from defectlab_runtime import names
from defectlab_runtime.decision import round_down
from defectlab_runtime.errors import InputError, OptionError, unknown_name
from defectlab_runtime.images import as_uint8, read_image
from defectlab_runtime.overlays import colour_map, contour

WHICH = ("first", "all")
RADIUS = 4  # radius in pixels of the disc with which masks are opened


def check_which(figures: str | None) -> None:
    """Check that `figures`, which selects the images that get figures, is None, `first` or `all`.

    Raises:
        OptionError: It is neither.
    """
    if figures is not None and figures not in WHICH:
        raise OptionError(f"--figures: {unknown_name('choice', str(figures), WHICH)}")


def opened(mask: np.ndarray) -> np.ndarray:
    """Apply morphological opening with a disc of radius 4 to an (H, W) bool mask, which removes small regions."""
    from scipy.ndimage import binary_opening

    y, x = np.ogrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
    return binary_opening(mask, structure=x**2 + y**2 <= RADIUS**2)


def segmentation_figure(
    image: np.ndarray,
    anomaly_map: np.ndarray,
    found: np.ndarray,
    scale: tuple[float, float, float | None],
    title: str,
    truth: np.ndarray | None = None,
) -> Image.Image:
    """Return a figure of image, ground truth (if given), heat map, opened mask and its boundaries, side by side.

    Args:
        image: (H, W, 3) uint8.
        anomaly_map: (H, W) raw.
        found: (H, W) bool, where the map is above its threshold.
        scale: Raw values that are drawn darkest and brightest, the same for all images of a run, and the threshold.
        title: Above all panels.
        truth: (H, W) bool.
    """
    low, high, threshold = scale
    mask = opened(found)
    panels = {"image": image}
    if truth is not None:
        panels["ground truth"] = _black_and_white(truth)
    panels["heat map"] = colour_map(anomaly_map, low, high)
    panels |= {"predicted mask": _black_and_white(mask), "boundaries": contour(image, mask)}
    height, width = image.shape[:2]
    figure, axes = image_row(panels, (3.4 * len(panels), 3.3 * min(1.6, height / width) + 1.1))
    figure.suptitle(names.figure(title))
    scale_bar(figure, axes, low, high, threshold, "Anomaly Score")
    return to_image(figure)


def write_run_figures(run: Run, folder: Path, which: str = "first") -> Iterator[Path]:
    """Write DATASET_val_N.png, five panels of test images (four without masks), from the record alone; yield each.

    Raises:
        InputError: The run has no maps (any more) or no map threshold, serves several categories, or an image cannot be
            read.
    """
    check_which(which)
    one_dataset(run, "a figure of test images")
    shown = ShownImages.of(run)
    if shown is None or shown.scale.threshold is None:
        raise InputError(f"{run.folder} has no maps of test images, or no threshold for them: no figures of them.")
    folder.mkdir(parents=True, exist_ok=True)
    scale = (shown.scale.low, shown.scale.high, shown.scale.threshold)
    for place in range(len(shown.rows) if which == "all" else 1):
        image = as_uint8(read_image(paths.resolve(shown.rows[place].image_path), shown.bit_depth))
        size = (image.shape[0], image.shape[1])
        anomaly_map = on_image(shown.frame, shown.maps[place], image, size)
        truth = None
        if shown.masks is not None:
            truth = on_image(shown.frame, shown.masks[place], image, size) > 0.5
        found = anomaly_map > round_down(shown.scale.threshold)
        path = folder / f"{names.path(run.record.dataset.name)}_val_{place}.png"
        figure = segmentation_figure(image, anomaly_map, found, scale, shown.verdict(place)[0], truth)
        with replacing(path) as partial:
            figure.save(partial, format="PNG")
        yield path


def run_figures_in(run: Run, folder: Path) -> list[Path]:
    """Return the figures of `write_run_figures` that are in a folder."""
    return sorted(folder.glob(f"{glob.escape(names.path(run.record.dataset.name))}_val_*.png"))


def _black_and_white(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None], 3, axis=2) * np.uint8(255)
