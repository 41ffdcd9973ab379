"""What the nearest pixel loses on a grid of 256 x 256 is counted before training."""

import numpy as np
import pytest
from PIL import Image

from defectlab.data.manifest.check import check
from tests.helpers.datasets import mvtec, write_image

SIDE = 1024  # four pixels of a mask to a cell of the grid, of which the nearest pixel reads the first


@pytest.fixture(scope="module")
def tiny_defects(tmp_path_factory):
    """Three images: two dots of which the grid's pixels meet one, a dot they miss, and a square."""
    root = tmp_path_factory.mktemp("tiny")
    mvtec(root, kinds={"crack": 3})
    dots = [[(100, 100, 2), (201, 201, 2)], [(301, 302, 2)], [(400, 401, 30)]]
    for number, squares in enumerate(dots):
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        for top, left, side in squares:
            mask[top : top + side, left : left + side] = 255
        write_image(root / f"test/crack/{number:03d}.png", size=(SIDE, SIDE))
        Image.fromarray(mask).save(root / f"ground_truth/crack/{number:03d}_mask.png")
    return root


def test_a_note_by_area_and_a_warning_by_the_nearest_pixel(tiny_defects):
    lost = "2 of 4 defects, all of them in 1 of 3 images"
    text = check(tiny_defects, near=False).text
    assert f"Note: Masks on the grid of the pixel metrics: the nearest pixel would lose {lost} (the grid is" in text
    assert "for example 256 x 256); by area all are kept." in text
    text = check(tiny_defects, near=False, mask_reduction="nearest").text
    assert "Warning: Defects are lost by mask_reduction nearest" in text
    assert f"  {lost} have no pixel left" in text


def test_large_defects(tmp_path):
    mvtec(tmp_path)
    assert "none of 7 defects is lost" in check(tmp_path, near=False).text
