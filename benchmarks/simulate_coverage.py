"""How often the 95 % bootstrap intervals of image and pixel metrics hold the truth, by size, AUROC and shape.

    python -m benchmarks.simulate_coverage                     # images, 100 test sets a row: two minutes on one thread
    python -m benchmarks.simulate_coverage --repeats 2000
    python -m benchmarks.simulate_coverage --pixels            # maps whose defects differ in how much they stand out

The truth is the metric of 200,000 images with the same share of anomalous ones (of 4,000 maps). A cell is the share of
intervals that hold it, the share of those that flatter (wholly above the truth, or below it for FPR_at_95TPR), and the
share of test sets that have an interval at all.
"""

import argparse

import numpy as np
from scipy.special import ndtri

from defectlab.evaluation.bootstrap import image_intervals, resampled_image_metrics
from defectlab.evaluation.metric_names import LOWER_IS_BETTER
from defectlab.evaluation.pixel.bootstrap import pixel_intervals, resampled_pixel_metrics
from defectlab.evaluation.pixel.histograms import pixel_histograms
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages

METRICS = ("AUROC", "AUPR", "F1Max", "FPR_at_95TPR", "F1Score", "accuracy", "precision", "TPR")
PIXEL_METRICS = ("AUROC", "AUPR", "F1Max", "FPR_at_95TPR", "AUPRO", "F1Score", "TPR", "TNR", "precision")
SIZES = ((5, 5), (10, 10), (20, 20), (40, 40), (60, 30), (30, 60), (100, 100), (200, 200), (400, 400))
SIZES_OF_PIXELS = ((5, 5), (10, 10), (20, 20), (40, 40), (80, 80))
SIDE = 12  # of a simulated map


def draw(random: np.random.Generator, good: int, bad: int, area: float, shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and labels of test images; `shape` is normal, or heavy (Student's t) with a third almost good."""
    labels = np.repeat([0, 1], [good, bad])
    shift = float(ndtri(area) * np.sqrt(2))
    if shape == "normal":
        return random.normal(size=labels.size) + shift * labels, labels
    faint = random.random(labels.size) < 1 / 3
    return random.standard_t(3, size=labels.size) + labels * np.where(faint, 0.4, 1.5) * shift, labels


def draw_maps(random: np.random.Generator, good: int, bad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return maps (n, h, w), masks (n, h, w) and labels of test images whose ground and defects differ by image."""
    labels = np.repeat([0, 1], [good, bad])
    masks = np.zeros((labels.size, SIDE, SIDE), bool)
    for index in np.flatnonzero(labels):
        top, left = random.integers(0, SIDE - 4, 2)
        masks[index, top : top + random.integers(2, 5), left : left + random.integers(2, 5)] = True
    ground, contrast = random.normal(0, 0.5, labels.size), random.normal(2.0, 0.8, labels.size)
    maps = random.normal(size=masks.shape) + ground[:, None, None] + contrast[:, None, None] * masks
    return maps.astype(np.float32), masks, labels


def coverage(found: list[dict], truth: dict[str, float]) -> dict[str, tuple[float, float, float]]:
    """Return, by metric, the share of intervals that hold the truth, of those that flatter, and of sets with one."""
    rows = {}
    for name, value in truth.items():
        given = [its[name] for its in found if name in its and its[name].low is not None]
        hold = [its.low <= value <= its.high for its in given]
        lower = f"image_{name}" in LOWER_IS_BETTER
        flatter = [its.high < value if lower else its.low > value for its in given]
        share = len(given) / len(found)
        rows[name] = (float(np.mean(hold)), float(np.mean(flatter)), share) if given else (np.nan, np.nan, 0.0)
    return rows


def of_images(good: int, bad: int, area: float, shape: str, repeats: int, seed: int = 0) -> dict:
    """Return the coverage of image metrics; the threshold is midway between the classes' medians."""
    random = np.random.default_rng(seed)
    many = 200_000 // (good + bad)
    scores, labels = draw(random, good * many, bad * many, area, shape)
    threshold = float((np.median(scores[labels == 0]) + np.median(scores[labels == 1])) / 2)
    ones = np.ones((1, labels.size), np.float32)
    truth = {name: float(value[0]) for name, value in resampled_image_metrics(scores, labels, threshold, ones).items()}
    found = [image_intervals(*draw(random, good, bad, area, shape), threshold, repeats=300) for _ in range(repeats)]
    return coverage(found, {name: truth[name] for name in METRICS})


def of_pixels(good: int, bad: int, repeats: int, seed: int = 0) -> dict:
    """Return the coverage of pixel metrics."""
    random = np.random.default_rng(seed)
    maps, masks, labels = draw_maps(random, 2000, 2000 * bad // good)
    counts = pixel_histograms(ArrayImages(maps, masks), 1.5)
    ones = np.ones((1, labels.size), np.float32)
    truth = {name: float(value[0]) for name, value in resampled_pixel_metrics(counts, ones).items()}
    found = []
    for _ in range(repeats):
        maps, masks, labels = draw_maps(random, good, bad)
        found.append(pixel_intervals(ArrayImages(maps, masks), labels, 1.5, repeats=300))
    return coverage(found, {name: truth[name] for name in PIXEL_METRICS})


def main() -> None:
    """Print coverage / flattering share / share given as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pixels", action="store_true")
    arguments = parser.parse_args()
    names = PIXEL_METRICS if arguments.pixels else METRICS
    print(f"| good + anomalous | AUROC, shape | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    if arguments.pixels:
        settings = [(good, bad, None, "maps") for good, bad in SIZES_OF_PIXELS]
    else:
        shapes = ((0.8, "normal"), (0.93, "normal"), (0.99, "normal"), (0.93, "heavy"))
        settings = [(good, bad, area, shape) for good, bad in SIZES for area, shape in shapes]
    for good, bad, area, shape in settings:
        if area is None:
            found = of_pixels(good, bad, arguments.repeats, arguments.seed)
        else:
            found = of_images(good, bad, area, shape, arguments.repeats, arguments.seed)
        cells = [f"{hold:.2f} / {high:.2f} / {given:.2f}" for hold, high, given in found.values()]
        print(f"| {good} + {bad} | {area or ''} {shape} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
