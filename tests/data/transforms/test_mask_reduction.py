"""How masks come to the grid of pixel metrics: no defect vanishes, nothing moves, and anomalib's way on request."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score
from torchvision.tv_tensors import Mask

from defectlab.data.transforms.mask_reduction import kept_regions, mask_on_input, reduce_mask
from defectlab.data.transforms.preprocessing import Preprocessing

SIDES = st.integers(1, 40)
EIGHT = np.ones((3, 3), dtype=bool)


def brute_force_cover(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the share of each cell (H, W) that marked pixels cover, from the overlaps of all intervals."""
    weights = []
    for old, new in zip(mask.shape, size, strict=True):
        pixels, cells = np.arange(old), np.arange(new) * old / new
        ends = np.minimum(cells[:, None] + old / new, pixels + 1)
        weights.append(np.clip(ends - np.maximum(cells[:, None], pixels), 0, None) * new / old)
    return weights[0] @ mask.astype(float) @ weights[1].T


@given(SIDES, SIDES, SIDES, SIDES, st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_half_covered_cells_are_marked_and_no_region_is_lost(
    h: int, w: int, new_h: int, new_w: int, share: float, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((h, w)) < share**3
    reduced = reduce_mask(mask, (new_h, new_w))
    if mask.shape == reduced.shape:
        assert np.array_equal(mask, reduced)
        return
    cover = brute_force_cover(mask, (new_h, new_w))
    assert reduced[cover >= 0.5 + 1e-9].all()
    assert not reduced[cover <= 1e-9].any()
    labels, count = ndimage.label(mask, structure=EIGHT)
    for number in range(1, count + 1):
        touched = brute_force_cover(labels == number, (new_h, new_w)) > 1e-9
        assert (reduced & touched).any()
        # and no part of it is left out
        assert ndimage.binary_dilation(reduced & touched, EIGHT)[touched].all()
    # a cell under half of its cover is there for a region that would be dropped, torn or cut short otherwise
    half = cover >= 0.5 - 1e-9
    touched_by = [brute_force_cover(labels == number, (new_h, new_w)) > 1e-9 for number in range(1, count + 1)]
    broken = [
        touched
        for touched in touched_by
        if ndimage.label(half & touched, structure=EIGHT)[1] != 1
        or not ndimage.binary_dilation(half & touched, EIGHT)[touched].all()
    ]
    allowed = np.any(broken, axis=0) if broken else np.zeros_like(half)
    assert not (reduced & ~half & ~allowed).any()


@pytest.mark.parametrize("shape", ["square", "cross", "blob with a tail", "corner"])
def test_a_thin_defect_stays_along_its_whole_course(shape: str) -> None:
    mask = np.zeros((256, 256), dtype=bool)
    if shape == "square":
        mask[50:200, 50:200] = True
        mask[51:199, 51:199] = False
    elif shape == "cross":
        mask[120, 20:230] = mask[20:230, 121] = True
    elif shape == "corner":
        mask[30:200, 40] = mask[199, 40:210] = True
    else:
        mask[100:140, 100:140] = mask[120, 20:100] = True
    cover = brute_force_cover(mask, (64, 64))
    reduced = reduce_mask(mask, (64, 64))
    assert ndimage.binary_dilation(reduced, EIGHT)[cover > 0].all()
    assert not reduced[cover == 0].any()
    assert average_precision_score(reduced.ravel(), cover.ravel()) > 0.95


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_small_squares_vanish_by_the_nearest_pixel_and_never_by_area(side: int) -> None:
    kept = {"area": 0, "nearest": 0}
    shift = []
    for top in range(4):
        for left in range(4):
            mask = np.zeros((64, 64), dtype=bool)
            mask[20 + top : 20 + top + side, 20 + left : 20 + left + side] = True
            for method in kept:
                kept[method] += int(reduce_mask(mask, (16, 16), method).any())
            cells = np.argwhere(reduce_mask(mask, (16, 16))) * 4 + 2.0
            shift.append(cells.mean(0) - (np.argwhere(mask) + 0.5).mean(0))
    assert kept["area"] == 16
    assert kept["nearest"] == {1: 1, 2: 4, 3: 9, 6: 16}[side]
    assert np.abs(np.mean(shift, axis=0)).max() < 0.35  # source pixels, over all positions in a cell


@pytest.mark.parametrize("angle", [0, 20, 45, 70, 90])
@pytest.mark.parametrize("width", [1, 2])
def test_a_perfect_map_finds_thin_scratches(angle: int, width: int) -> None:
    y, x = np.mgrid[:256, :256] + 0.5
    across = np.deg2rad(angle)
    distance = (y - 127.3) * np.cos(across) - (x - 128.1) * np.sin(across)
    along = (y - 127.3) * np.sin(across) + (x - 128.1) * np.cos(across)
    mask = (np.abs(distance) <= width / 2) & (np.abs(along) < 90)
    perfect = brute_force_cover(mask, (64, 64))
    reduced = reduce_mask(mask, (64, 64))
    assert ndimage.label(reduced, structure=EIGHT)[1] == 1  # AUPRO gives each region the same weight
    assert average_precision_score(reduced.ravel(), perfect.ravel()) > 0.93


def test_a_dropped_region_gets_its_best_cells() -> None:
    mask = np.zeros((16, 16), dtype=bool)
    mask[3:5, 2:14] = True  # a scratch on the edge of two rows of cells, a quarter of each
    assert np.argwhere(reduce_mask(mask, (4, 4))).tolist() == [[r, c] for r in (0, 1) for c in (1, 2)]
    mask[:] = False
    mask[5, 5] = True
    assert np.argwhere(reduce_mask(mask, (4, 4))).tolist() == [[1, 1]]


def test_kept_regions_names_those_that_the_nearest_pixel_drops() -> None:
    mask = np.zeros((16, 16), dtype=bool)
    mask[0:2, 0:2] = True
    mask[9:11, 9:11] = True
    assert kept_regions(mask, reduce_mask(mask, (4, 4), "nearest")).tolist() == [True, False]
    assert kept_regions(mask, reduce_mask(mask, (4, 4))).tolist() == [True, True]


@pytest.mark.parametrize("method", ["area", "nearest"])
@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("crop", [None, (20, 23)])
def test_batches_and_records_see_one_mask(method: str, keep_aspect: bool, crop: tuple[int, int] | None) -> None:
    preprocessing = Preprocessing(size=(32, 28), crop=crop, keep_aspect=keep_aspect)
    mask = np.random.default_rng(3).random((50, 81)) < 0.05
    tensor = Mask(torch.from_numpy(mask.astype(np.uint8)))
    batch = preprocessing.transform()(preprocessing.resize(method)(tensor))
    assert batch.dtype == torch.uint8
    assert np.array_equal(batch.numpy() > 0, mask_on_input(mask, (50, 81), preprocessing.frame, method))
