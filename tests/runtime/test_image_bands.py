import numpy as np
import pytest
from PIL import Image

from defectlab_runtime import image_bands
from defectlab_runtime.image_bands import pixels_of

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "P", "I;16"])
def test_a_large_image_is_read_in_bands(monkeypatch, mode):
    image = Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257 if mode == "I;16" else COLOURS)
    image = image if mode == "I;16" else image.convert(mode)
    expected = np.asarray(image)
    for pixels in (5, 20, 53):  # a row at a time, two, all but one pixel
        monkeypatch.setattr(image_bands, "BAND_PIXELS", pixels)
        np.testing.assert_array_equal(pixels_of(image), expected)
