"""Reading of mask files."""

import numpy as np
from PIL import Image

from defectlab.data.mask_files import read_mask


def saved(path, array):
    Image.fromarray(array).save(path)
    return path


def test_mask_is_true_where_any_colour_is_not_zero(tmp_path):
    colour = np.zeros((4, 4, 4), np.uint8)
    colour[..., 3] = 255  # opaque everywhere: alpha is no defect
    colour[1, 2, 2] = 1
    expected = np.zeros((4, 4), bool)
    expected[1, 2] = True
    for name, array in [("c.png", colour), ("g.png", colour[..., 2]), ("d.png", colour[..., 2].astype(np.uint16))]:
        read = read_mask(saved(tmp_path / name, array))
        assert read.dtype == bool
        np.testing.assert_array_equal(read, expected)
    np.testing.assert_array_equal(read_mask(saved(tmp_path / "b.png", expected)), expected)
