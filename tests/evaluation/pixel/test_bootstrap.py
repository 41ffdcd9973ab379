"""Intervals of pixel metrics: those of the resampled images, and their coverage by simulation."""

import numpy as np
import pytest
from scipy import ndimage

from defectlab.evaluation.bootstrap import (
    resample_counts,
)
from defectlab.evaluation.pixel.bootstrap import pixel_intervals, resampled_pixel_metrics
from defectlab.evaluation.pixel.histograms import pixel_histograms
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, ImageSubset
from defectlab.evaluation.pixel.metrics import pixel_metrics


def image_set(levels: int | None, count: int = 12, size: int = 40) -> tuple[ArrayImages, np.ndarray]:
    draw = np.random.default_rng(0)
    masks = ndimage.gaussian_filter(draw.normal(size=(count, size, size)), (0, 3, 3)) > 0.15
    masks[::2] = False
    ease = draw.normal(1, 0.7, size=(count, 1, 1))
    maps = draw.normal(size=masks.shape) + ease * masks
    maps = (np.round(maps * levels / 8) if levels else maps).astype(np.float32)
    return ArrayImages(maps, masks), (np.arange(count) % 2).astype(int)


@pytest.mark.parametrize(("levels", "apart"), [(4, 1e-6), (60, 1e-6), (None, 2e-3)])
def test_pixel_metrics_of_a_draw_are_those_of_the_drawn_images(levels: int | None, apart: float) -> None:
    images, labels = image_set(levels)
    draws = resample_counts(labels, repeats=6)
    found = resampled_pixel_metrics(pixel_histograms(images, 1.0), draws)
    for number, draw in enumerate(draws):
        places = np.repeat(np.arange(labels.size), draw.astype(int)).tolist()
        expected = pixel_metrics(ImageSubset(images, places), threshold=1.0)
        assert set(found) == set(expected)
        for name, metric in expected.items():
            # where it is high, 95 % are caught only where the curve is flat: a step is many good pixels
            within = max(apart, 5e-3 if name == "FPR_at_95TPR" and levels is None else 0)
            assert found[name][number] == pytest.approx(metric.value, abs=within), name


def test_pixel_intervals_hold_the_metric_and_are_the_same_twice() -> None:
    images, labels = image_set(None)
    metrics, intervals = pixel_metrics(images, threshold=1.0), pixel_intervals(images, labels, 1.0)
    assert intervals == pixel_intervals(images, labels, 1.0)
    assert set(metrics) == set(intervals)
    assert "with fewer than 60" in intervals.pop("FPR_at_95TPR").method
    for name, metric in metrics.items():
        if name not in intervals:
            continue
        assert intervals[name].low < metric.value < intervals[name].high, name
        assert "bootstrap over images, 1000 draws" in intervals[name].method


def test_pixels_of_one_image_move_together() -> None:
    images, labels = image_set(None, count=40)
    few = pixel_intervals(ImageSubset(images, range(10)), labels[:10], 1.0)["AUROC"]
    many = pixel_intervals(images, labels, 1.0)["AUROC"]
    assert many.high - many.low < 0.7 * (few.high - few.low)
    pairs = [str(number // 8) for number in range(40)]
    assert "groups" in pixel_intervals(images, labels, 1.0, pairs)["AUROC"].method


def covered_pixels(simulations: int, count: int) -> dict[str, float]:
    """The same for pixel metrics: images differ in how much their defect stands out."""
    draw = np.random.default_rng(6)

    def image_set(number: int) -> ArrayImages:
        masks = np.zeros((number, 12, 12), dtype=bool)
        masks[number // 2 :, 4:8, 3:9] = True
        ease = draw.normal(1, 0.5, size=(number, 1, 1))
        return ArrayImages((draw.normal(size=masks.shape) + ease * masks).astype(np.float32), masks)

    truth = {name: metric.value for name, metric in pixel_metrics(image_set(20_000), threshold=0.8).items()}
    hits = dict.fromkeys(truth, 0)
    labels = np.repeat([0, 1], count)
    for _ in range(simulations):
        found = pixel_intervals(image_set(2 * count), labels, 0.8, repeats=400)
        for name, value in truth.items():
            if found[name].low is not None:
                hits[name] += found[name].low <= value <= found[name].high
    return {name: hit / simulations for name, hit in hits.items() if count >= 60 or name != "FPR_at_95TPR"}


def test_pixel_intervals_cover_the_truth() -> None:
    found = covered_pixels(simulations=60, count=30)
    assert min(found.values()) >= 0.83, found  # what 60 simulations can tell of 0.93


@pytest.mark.long
def test_coverage_of_pixel_intervals_at_length() -> None:
    found = covered_pixels(simulations=500, count=40)
    print("\n40 good and 40 anomalous images:", found)
    assert min(found.values()) >= 0.90, found
