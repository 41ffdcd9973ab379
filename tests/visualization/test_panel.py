"""Rows of pictures with captions, drawn once."""

import numpy as np

from defectlab.visualization.panel import PanelRow, Scale, draw_panel
from defectlab_runtime.overlays import CONTOUR


def test_a_panel_keeps_the_form_of_its_pictures_and_bounds_its_text():
    wide = np.full((60, 120, 3), 90, dtype=np.uint8)
    scale = Scale(0.0, 1.0, 0.5, "map")
    one = draw_panel([PanelRow([wide, wide], "кадр " * 60, "x", True)], ["a", "b"], "h", [(CONTOUR, "c")], scale, 128)
    assert (one == 90).all(-1).any(0).sum() == 2 * 128
    assert (one == 90).all(-1).any(1).sum() == 64
    assert (one[:, -2:] == 255).all(), "a long caption is shortened, not cut off"
