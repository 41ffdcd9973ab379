"""Resized maps and masks against torch, and maps back on their image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab_runtime.geometry import Frame, resize_bilinear, resize_nearest

SIDES = st.integers(1, 13)


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 10))
@settings(max_examples=80, deadline=None)
def test_resizing_is_torchs(h: int, w: int, new_h: int, new_w: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(h, w)).astype(np.float32)
    # in float64: in float32 torch's own positions are off by some 1e-6 of a pixel
    tensor = torch.from_numpy(values.astype(np.float64))[None, None]
    expected = torch.nn.functional.interpolate(tensor, size=(new_h, new_w), mode="bilinear", align_corners=False)
    assert np.allclose(resize_bilinear(values, (new_h, new_w)), expected[0, 0].numpy(), rtol=0, atol=2e-6)
    nearest = torch.nn.functional.interpolate((tensor > 0).float(), size=(new_h, new_w), mode="nearest")[0, 0] > 0
    assert np.array_equal(resize_nearest(values > 0, (new_h, new_w)), nearest.numpy())


def test_infinite_scores_stay_infinite_and_make_no_nan() -> None:
    values = np.array([[np.inf, np.inf, 1.0, -np.inf, -np.inf]] * 2, dtype=np.float32)
    large = resize_bilinear(values, (4, 15))
    assert not np.isnan(large).any()
    assert (large[0, 0], large[0, 7], large[0, -1]) == (np.inf, 1.0, -np.inf)


@pytest.mark.parametrize("crop", [None, (20, 23)])
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_maps_go_back_onto_the_image_as_predictions_do(crop: tuple[int, int] | None, keep_aspect: bool) -> None:
    preprocessing = Preprocessing(size=(32, 28), crop=crop, keep_aspect=keep_aspect)
    shape, image_size = crop or (32, 28), (50, 81)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = preprocessing.to_image(torch.from_numpy(values)[None], image_size)[0].numpy()
    found = Frame.from_record(preprocessing.to_dict()).to_region(values, image_size, image_size, unseen=-np.inf)
    unseen = np.isnan(expected)
    assert unseen.any() == (crop is not None)
    assert (found[unseen] == -np.inf).all()
    assert np.allclose(found[~unseen], expected[~unseen], rtol=0, atol=1e-5)
