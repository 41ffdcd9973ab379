"""The runtime's preparation of images against the toolkit's torch transforms, and maps back on the image."""

import numpy as np
import pytest
import torch

from defectlab.data.datasets import to_tensor
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab_runtime.errors import DataError
from defectlab_runtime.geometry import enlarge_bilinear, resize_bilinear
from defectlab_runtime.preprocessing import PreprocessingSettings, resize_antialiased
from defectlab_runtime.region import Region
from defectlab_runtime.tiling import Tiling

SIZES = [(1, 1), (3, 200), (17, 900), (64, 64), (63, 65), (97, 61), (128, 32), (301, 333), (640, 479)]  # of images
TOLERANCE = 2e-5  # of random noise, the worst case: torch computes the weights in float32


def an_image(size: tuple[int, int], dtype: type = np.uint8) -> np.ndarray:
    values = np.random.default_rng(size[0] * 1000 + size[1]).random((*size, 3))
    return (values * 255).astype(np.uint8) if dtype is np.uint8 else values.astype(np.float32)


def both(image: np.ndarray, **settings) -> tuple[np.ndarray, np.ndarray]:
    """Return an image as the runtime prepares it and as the toolkit does before crop and normalisation."""
    found = PreprocessingSettings(**settings).prepare(image)
    assert found.dtype == np.float32
    return found, Preprocessing(**settings).resize()(to_tensor(image)).numpy()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("image_size", SIZES)
def test_resizing_is_that_of_the_torch_path(image_size: tuple[int, int], keep_aspect: bool, interpolation: str):
    for size in [(64, 64), (33, 70), (256, 192)]:
        for dtype in (np.uint8, np.float32):
            options = {"size": size, "keep_aspect": keep_aspect, "interpolation": interpolation}
            found, expected = both(an_image(image_size, dtype), **options)
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_nearest_takes_torchs_pixels_at_every_ratio():
    for old in range(1, 90):
        values = np.arange(old * 2, dtype=np.float32).reshape(old, 2)
        for new in range(1, 90):
            expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], (new, 2), mode="nearest")
            np.testing.assert_array_equal(resize_antialiased(values, (new, 2), "nearest"), expected[0, 0].numpy())


def test_an_image_of_the_models_size_is_not_resampled():
    image = an_image((64, 64))
    for interpolation in ("bilinear", "bicubic"):
        found, expected = both(image, size=(64, 64), interpolation=interpolation)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found, image.transpose(2, 0, 1) / 255, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_region_and_its_mask_are_cut_out_first(dtype: type):
    mask = np.random.default_rng(0).random((90, 70)) > 0.3
    for region in (Region.of((5, 7, 60, 80), None), Region.of((5, 7, 60, 80), mask), Region.of(None, mask)):
        found, expected = both(an_image((90, 70), dtype), size=(48, 40), region=region)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_an_image_that_does_not_fit_the_region_is_refused():
    settings = PreprocessingSettings(size=(32, 32), region=Region.of((0, 0, 50, 50), None))
    with pytest.raises(DataError, match="40 x 60, and crop_area ends at 50, 50"):
        settings.prepare(an_image((60, 40)))


def test_crop_and_tiles_are_left_to_the_graph():
    assert PreprocessingSettings(size=(32, 32), crop=(16, 16)).prepare(an_image((40, 50))).shape == (3, 32, 32)
    tiled = PreprocessingSettings(size=(32, 32), tiling=Tiling((64, 96)))
    assert tiled.prepare(an_image((40, 50))).shape == (3, 64, 96)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"crop": (40, 30)},
        {"keep_aspect": True},
        {"keep_aspect": True, "crop": (30, 44)},
        {"region": Region.of((3, 4, 60, 50), None)},
    ],
)
@pytest.mark.parametrize("image_size", [(64, 61), (97, 61), (128, 300), (301, 333)])
def test_maps_come_back_to_the_image_as_by_torch(image_size: tuple[int, int], options: dict):
    settings = {"size": (56, 48), **options}
    preprocessing = Preprocessing(**settings)
    anomaly_map = np.random.default_rng(1).random(preprocessing.map_size).astype(np.float32)
    found = PreprocessingSettings(**settings).frame.to_image(anomaly_map, image_size, resize=enlarge_bilinear)
    expected = preprocessing.to_image(torch.from_numpy(anomaly_map)[None], image_size)[0].numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("size", [(56, 48), (57, 48), (300, 401), (20, 400)])
@pytest.mark.parametrize("special", [1.0, np.nan, np.inf])
def test_the_fast_way_to_enlarge_is_the_plain_one(size: tuple[int, int], special: float):
    values = np.random.default_rng(2).random((56, 48)).astype(np.float32)
    values[7, 9] = special
    np.testing.assert_allclose(enlarge_bilinear(values, size), resize_bilinear(values, size), rtol=0, atol=1e-6)


def test_settings_of_both_are_one_record():
    region = Region.of((1, 2, 30, 40), np.ones((50, 60), bool))
    options = {"size": (32, 32), "region": region, "tiling": Tiling((64, 64), 0.5), "bit_depth": 12}
    ours, torchs = PreprocessingSettings(**options), Preprocessing(**options)
    assert ours.to_dict() == torchs.to_dict()
    assert ours.hash == torchs.hash
    assert PreprocessingSettings.from_dict(torchs.to_dict()) == ours
    assert Preprocessing.from_dict(ours.to_dict()) == torchs
