"""Pixel metrics block by block: the same as in one piece, to the last digit, and what scikit-learn says."""

import logging
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score, roc_curve

from defectlab.evaluation.metrics import Metric, aupr, auroc, f1_at, f1_max, fpr_at_tpr, rates_at, sort_scores
from defectlab.evaluation.pixel.blocks import MEMORY, Blocks
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, ImageSubset
from defectlab.evaluation.pixel.metrics import NAMES, pixel_metrics
from defectlab.results.run.arrays import pack_masks
from defectlab_runtime.errors import InputError

TIED = st.sampled_from([-np.inf, -3e38, -2.0, -1e-40, -0.0, 0.0, 1e-40, 0.1, 0.25, 1.0, 7.5, np.inf])
SCORE = st.one_of(TIED, st.floats(allow_nan=False, width=32))


class Ragged:
    """Images of many sizes."""

    def __init__(self, maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> None:
        self.maps, self.masks = maps, masks
        self.sizes = [one.shape for one in maps]

    def map(self, index: int) -> np.ndarray:
        return self.maps[index]

    def mask(self, index: int) -> np.ndarray:
        return self.masks[index]


@st.composite
def image_sets(draw: st.DrawFn) -> Ragged:
    """Up to five images of up to 4 x 5 pixels, some constant, some without a defect."""
    maps, masks = [], []
    for _ in range(draw(st.integers(0, 5))):
        shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
        size = shape[0] * shape[1]
        constant = draw(st.one_of(st.none(), SCORE))
        values = [constant] * size if constant is not None else draw(st.lists(SCORE, min_size=size, max_size=size))
        kind = draw(st.sampled_from(["none", "all", "some"]))
        marks = (
            draw(st.lists(st.booleans(), min_size=size, max_size=size)) if kind == "some" else [kind == "all"] * size
        )
        maps.append(np.array(values, dtype=np.float32).reshape(shape))
        masks.append(np.array(marks, dtype=bool).reshape(shape))
    return Ragged(maps, masks)


def flat(images: Ragged) -> tuple[np.ndarray, np.ndarray]:
    scores = np.concatenate([np.empty(0, np.float32), *(one.ravel() for one in images.maps)])
    return scores, np.concatenate([np.empty(0, bool), *(one.ravel() for one in images.masks)])


def in_one_piece(images: Ragged, threshold: float | None) -> dict[str, Metric]:
    """The other way: all pixels sorted at once, one function for each metric."""
    curve = sort_scores(*flat(images), allow_infinite=True)
    return {
        "AUROC": auroc(curve),
        "F1Score": f1_at(curve, threshold),
        "F1Max": f1_max(curve),
        "AUPR": aupr(curve),
        "FPR_at_95TPR": fpr_at_tpr(curve),
        **rates_at(curve, threshold),
    }


def aupro_by_definition(images: Ragged, limit: float) -> float:
    """Threshold by threshold: mean overlap of regions against the share of good pixels flagged."""
    regions = []
    for number, mask in enumerate(images.masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(number, labels == one) for one in range(1, count + 1)]
    scores, marks = flat(images)
    points = [(0.0, 0.0)]
    for threshold in np.unique(scores)[::-1]:
        overlap = np.mean([(images.maps[number] >= threshold)[region].mean() for number, region in regions])
        points.append(((scores >= threshold)[~marks].mean(), overlap))
    fpr, pro = np.array(points).T
    first = int(np.argmax(fpr >= limit))  # where the rate stands still the curve jumps: its first point there counts
    at_limit = np.interp(limit, fpr[first - 1 : first + 1], pro[first - 1 : first + 1])
    fpr, pro = np.append(fpr[:first], limit), np.append(pro[:first], at_limit)
    return float(((fpr[1:] - fpr[:-1]) * (pro[1:] + pro[:-1]) / 2).sum() / limit)


@given(image_sets(), st.one_of(st.none(), TIED, st.floats(allow_nan=False)), st.integers(1, 3000))
@settings(max_examples=200, deadline=None)
def test_blocks_equal_one_piece_to_the_last_digit(images: Ragged, threshold: float | None, memory: int) -> None:
    whole = pixel_metrics(images, threshold=threshold)
    assert pixel_metrics(images, threshold=threshold, memory=memory) == whole
    assert pixel_metrics(images, threshold=threshold, memory=1) == whole  # one image and one defect score at a time
    assert {name: whole[name] for name in NAMES[:-1]} == in_one_piece(images, threshold)
    for metric in whole.values():
        assert (metric.value is None) == (metric.reason is not None)
        assert metric.value is None or 0 <= metric.value <= 1


@given(image_sets(), st.sampled_from([0.05, 0.3, 1.0]))
@settings(max_examples=150, deadline=None)
def test_aupro_equals_its_definition(images: Ragged, limit: float) -> None:
    value = pixel_metrics(images, fpr_limit=limit, memory=1)["AUPRO"].value
    _, marks = flat(images)
    if not marks.any() or marks.all():
        assert value is None
    else:
        assert value == pytest.approx(aupro_by_definition(images, limit), abs=1e-9)


@given(image_sets())
@settings(max_examples=100, deadline=None)
def test_the_numbers_are_scikit_learns(images: Ragged) -> None:
    scores, marks = flat(images)
    if not marks.any() or marks.all():
        return
    ranks = np.unique(scores, return_inverse=True)[1]  # scikit-learn accepts no infinities
    found = pixel_metrics(images, threshold=0.2, memory=1)
    assert found["AUROC"].value == pytest.approx(roc_auc_score(marks, ranks), abs=1e-12)
    assert found["AUPR"].value == pytest.approx(average_precision_score(marks, ranks), abs=1e-12)
    flagged = scores.astype(np.float64) > 0.2
    assert found["F1Score"].value == pytest.approx(f1_score(marks, flagged, zero_division=0), abs=1e-12)
    best = max(f1_score(marks, ranks >= rank) for rank in np.unique(ranks))
    assert found["F1Max"].value == pytest.approx(best, abs=1e-12)
    fpr, tpr, _ = roc_curve(marks, ranks, drop_intermediate=False)
    assert found["FPR_at_95TPR"].value == pytest.approx(fpr[tpr >= 0.95 - 1e-12].min(), abs=1e-12)


@pytest.mark.parametrize("levels", [2, 50, None])
def test_many_pixels_in_many_ranges_of_scores(levels: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    masks = ndimage.gaussian_filter(draw.normal(size=(9, 60, 70)), (0, 3, 3)) > 0.15
    masks[::3] = False
    maps = (draw.normal(size=masks.shape) + masks).astype(np.float32)
    if levels:
        maps = np.round(maps * levels / 8).astype(np.float32)
    images = ArrayImages(maps, pack_masks(masks))
    whole = pixel_metrics(images, threshold=0.5)
    ranges = list(Blocks(images, 13_000).steps(Blocks(images, 13_000).summarize(None)))
    assert (len(ranges) > 5) == (levels != 2)  # two levels are two scores, however many pixels have them
    assert all(a.scores[-1] < b.scores[0] for a, b in pairwise(ranges))
    monkeypatch.setattr("defectlab.evaluation.pixel.blocks.SLICE_SIZE", 7)
    monkeypatch.setattr("defectlab.evaluation.pixel.blocks.READ_SIZE", 9_000)
    for memory in (13_000, 400_000, MEMORY):
        assert pixel_metrics(images, threshold=0.5, memory=memory) == whole
    assert whole["AUROC"].value == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)


def test_maps_on_disk_are_read_block_by_block_and_it_is_logged(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    draw = np.random.default_rng(2)
    masks = draw.random((6, 20, 30)) < 0.1
    maps = draw.random(masks.shape).astype(np.float32)
    np.save(tmp_path / "maps.npy", maps)
    on_disk = np.load(tmp_path / "maps.npy", mmap_mode="r")
    with caplog.at_level(logging.INFO):
        parts = pixel_metrics(ArrayImages(on_disk, masks), threshold=0.5, memory=2 * 12 * 600 * 2)
        assert "in 3 blocks" in caplog.text
        caplog.clear()
        assert pixel_metrics(ArrayImages(maps, masks), threshold=0.5, memory=MEMORY) == parts
        assert not caplog.text


@pytest.mark.parametrize("memory", [1, MEMORY])
def test_nan_is_counted_and_said(memory: int) -> None:
    maps = np.array([[[0.0, np.nan]], [[np.nan, 1.0]]], dtype=np.float32)
    found = pixel_metrics(ArrayImages(maps, maps > 0), threshold=0.5, memory=memory)
    assert {metric.reason for metric in found.values()} == {"2 of 4 scores are NaN"}


def test_some_images_are_those_alone() -> None:
    draw = np.random.default_rng(3)
    masks = draw.random((5, 8, 8)) < 0.2
    maps = draw.random(masks.shape).astype(np.float32)
    chosen = [3, 0]
    found = pixel_metrics(ImageSubset(ArrayImages(maps, masks), chosen), threshold=0.5)
    assert found == pixel_metrics(ArrayImages(maps[chosen], masks[chosen]), threshold=0.5)


def test_what_cannot_be_scored_is_refused() -> None:
    maps, masks = np.zeros((2, 3, 9), np.float32), np.zeros((2, 3, 9), bool)
    with pytest.raises(InputError, match="float32"):
        ArrayImages(maps.astype(np.float64), masks)
    with pytest.raises(InputError, match="alike"):
        ArrayImages(maps, masks[:, :, :8])
    with pytest.raises(InputError, match="alike"):
        ArrayImages(maps, np.zeros((2, 3, 1), np.uint8))
    with pytest.raises(InputError, match="limit"):
        pixel_metrics(ArrayImages(maps, masks), fpr_limit=0)
