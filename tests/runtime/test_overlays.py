"""Colours of maps against matplotlib's own."""

import numpy as np
from matplotlib import colormaps

from defectlab_runtime.inferno import inferno
from defectlab_runtime.overlays import colour_map


def test_the_colour_scale_is_matplotlibs():
    inferno_of_matplotlib = (colormaps["inferno"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    np.testing.assert_array_equal(inferno(), inferno_of_matplotlib)


def test_values_have_the_colours_that_matplotlib_gives_them():
    for dtype in (np.float32, np.float64):
        values = np.random.default_rng(0).random((60, 70)).astype(dtype)
        values[0, :4] = 0, 1, np.nextafter(dtype(1), dtype(0)), 1 / 256
        expected = (colormaps["inferno"](values)[..., :3] * 255).astype(np.uint8)
        np.testing.assert_array_equal(colour_map(values, 0.0, 1.0), expected)


def test_what_was_not_seen_is_grey_and_values_outside_are_clipped():
    found = colour_map(np.array([[np.nan, -5.0, 9.0]]), 1.0, 2.0)
    np.testing.assert_array_equal(found, [[[128] * 3, inferno()[0], inferno()[255]]])
