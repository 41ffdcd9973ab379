"""What masks hold, and what of them is marked: each is a square of 10 x 10 on 40 x 40, stored in another way."""

import numpy as np
import pytest
from PIL import Image

from defectlab.data.image_facts import probe
from defectlab.data.mask_content import MaskReading, _faintest, choose_reading, value_counts
from defectlab.data.mask_files import read_mask
from defectlab_runtime import image_bands

SQUARE = np.zeros((40, 40), dtype=bool)
SQUARE[10:20, 10:20] = True


def soft_edged() -> np.ndarray:
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[9:21, 9:21] = 96
    return np.where(SQUARE, 255, mask).astype(np.uint8)


def rgba(ground, ink) -> np.ndarray:
    return np.where(SQUARE[..., None], np.uint8(ink), np.uint8(ground))


def palette(*colours) -> Image.Image:
    image = Image.fromarray(SQUARE.astype(np.uint8))
    image = image.convert("P")
    image.putdata(SQUARE.astype(np.uint8).ravel().tolist())
    image.putpalette([value for colour in colours for value in colour])
    return image


def stored(path, mask, **options):
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path, **options)
    return path


def reading_of(*paths, **options) -> MaskReading:
    facts = [probe(path, as_mask=True).mask for path in paths]
    return choose_reading([fact for fact in facts if fact], **options)[0]


WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)


@pytest.mark.parametrize(
    "mask",
    [
        SQUARE,
        SQUARE * np.uint8(1),
        SQUARE * np.uint16(1000),
        soft_edged(),
        rgba((*WHITE, 0), (*RED, 255)),
        rgba((*WHITE, 0), (*BLACK, 255)),
        rgba((*BLACK, 0), (*BLACK, 255)),
        rgba((*BLACK, 255), (*RED, 255)),
        palette(BLACK, RED),
        palette(BLACK, BLACK),
        palette(WHITE, RED),
    ],
)
def test_the_square_is_marked_however_it_is_stored(tmp_path, mask):
    path = stored(tmp_path / "mask.png", mask)
    np.testing.assert_array_equal(read_mask(path, reading_of(path)), SQUARE)


@pytest.mark.parametrize("mask", [~SQUARE, rgba(WHITE, RED), palette(WHITE, BLACK), 255 - soft_edged()])
def test_an_inverted_mask(tmp_path, mask):
    path = stored(tmp_path / "mask.png", mask)
    np.testing.assert_array_equal(read_mask(path, reading_of(path, inverted=True)), SQUARE)


def test_noise_of_jpeg_is_not_marked_and_levels_of_classes_are(tmp_path):
    lossy = stored(tmp_path / "mask.jpg", SQUARE * np.uint8(255), quality=60)
    assert (read_mask(lossy) != SQUARE).sum() > 20
    np.testing.assert_array_equal(read_mask(lossy, reading_of(lossy)), SQUARE)
    classes = SQUARE * np.uint8(3)
    classes[30:34, 30:34] = 1  # half of the largest value would lose it
    path = stored(tmp_path / "classes.png", classes)
    assert reading_of(path) == MaskReading(0)
    painted = stored(tmp_path / "painted.png", np.where(SQUARE, 255, soft_edged() // 4).astype(np.uint8))
    faint = stored(tmp_path / "faint.png", SQUARE * np.uint8(100))
    assert reading_of(painted, faint) == MaskReading(0), "half of 255 would empty the mask of 100"


def test_one_jpeg_among_masks_of_0_and_1_empties_none(tmp_path):
    lossy = stored(tmp_path / "a.jpg", SQUARE * np.uint8(255), quality=60)
    class_numbers = stored(tmp_path / "b.png", SQUARE * np.uint8(1))
    white = stored(tmp_path / "c.png", SQUARE * np.uint8(255))
    reading, reason = choose_reading([probe(path, as_mask=True).mask for path in (lossy, class_numbers)])
    assert reading == MaskReading(0)
    assert "would lose 1 masks" in reason
    np.testing.assert_array_equal(read_mask(class_numbers, reading), SQUARE)
    for path in (lossy, white):
        np.testing.assert_array_equal(read_mask(path, reading_of(lossy, white)), SQUARE)


def test_a_threshold_that_is_given(tmp_path):
    path = stored(tmp_path / "mask.png", soft_edged())
    assert read_mask(path, reading_of(path, threshold=95)).sum() == 144
    assert read_mask(path, reading_of(path, threshold=96)).sum() == 100


def test_facts_of_a_file(tmp_path):
    content = probe(stored(tmp_path / "a.png", soft_edged()), as_mask=True).mask
    assert content is not None
    assert content.high.tolist() == [[0, 96, 255], [1456, 44, 100]]
    assert (content.pixels, content.is_soft, content.has_colours, content.lossy) == (1600, True, False, False)
    assert MaskReading(127).share(content) == 100 / 1600
    assert MaskReading(96, inverted=True).share(content) == 1500 / 1600
    assert MaskReading(0).is_not_zero([content])
    assert not MaskReading(127).is_not_zero([content])
    coloured = probe(stored(tmp_path / "b.png", rgba(BLACK, RED)), as_mask=True).mask
    assert coloured is not None
    assert coloured.has_colours
    assert MaskReading(0).is_not_zero([coloured])
    clear = probe(stored(tmp_path / "c.png", rgba((*WHITE, 0), (*RED, 255))), as_mask=True).mask
    assert clear is not None
    assert clear.has_alpha
    assert not MaskReading(0).is_not_zero([clear])
    assert probe(tmp_path / "a.png").mask is None


def test_records_from_before_marked_what_is_not_zero():
    assert MaskReading.from_dict(None) == MaskReading(0, inverted=False)
    reading = MaskReading(127, inverted=True)
    assert MaskReading.from_dict({**reading.to_dict(), "not_zero": False}) == reading
    assert (reading.describe(), MaskReading().describe()) == ("at most 127", "not 0")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "P with transparency", "RGB", "RGBA", "I;16", "F", "CMYK"])
@pytest.mark.parametrize("pixels", [1, 45, 300])
def test_a_mask_read_in_bands_is_the_same(tmp_path, monkeypatch, mode, pixels):
    generator = np.random.default_rng(len(mode))
    colours = generator.integers(0, 4, (24, 20, 4), dtype=np.uint8) * np.uint8(85)
    colours[:10, :, :3] = colours[:10, :, :1]  # colours begin below a band without any
    image = {
        "I;16": lambda: Image.fromarray(colours[..., 0].astype(np.uint16) * 100),
        "F": lambda: Image.fromarray(colours[..., 0] / np.float32(255)),
        "P with transparency": lambda: Image.fromarray(colours[..., :3]).convert("P"),
    }.get(mode, lambda: Image.fromarray(colours).convert("RGB" if mode in ("P", "CMYK") else "RGBA").convert(mode))()
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"transparency": 0} if "with" in mode else {}
    suffix = "tif" if mode in ("F", "CMYK") else "png"
    whole, banded = (stored(tmp_path / f"{name}.{suffix}", image, exif=exif, **options) for name in ("a", "b"))
    expected, mask = probe(whole, as_mask=True), read_mask(whole)
    assert mask.any()
    assert not expected.problem
    monkeypatch.setattr(image_bands, "BAND_PIXELS", pixels)
    found = probe(banded, as_mask=True)
    assert (found.largest, found.grey_values, found.problem) == (expected.largest, expected.grey_values, None)
    for fact in ("source", "has_alpha", "palette_differs", "faintest"):
        assert getattr(found.mask, fact) == getattr(expected.mask, fact), fact
    np.testing.assert_array_equal(found.mask.high, expected.mask.high)
    np.testing.assert_array_equal(found.mask.low, expected.mask.low)
    np.testing.assert_array_equal(read_mask(banded), mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.2, 0.6])
def test_counts_and_the_faintest_region_by_another_way(monkeypatch, dtype, density):
    monkeypatch.setattr(image_bands, "BAND_PIXELS", 100)
    generator = np.random.default_rng(3)
    values = (generator.integers(1, 250, (40, 30)) * (generator.random((40, 30)) < density)).astype(dtype)
    np.testing.assert_array_equal(value_counts(values), np.unique(values, return_counts=True))
    left = set(zip(*map(np.ndarray.tolist, np.nonzero(values > values.max() / 8)), strict=True))
    faintest = []
    while left:  # a region at a time, by its neighbours
        edge, largest = [left.pop()], 0.0
        while edge:
            row, column = edge.pop()
            largest = max(largest, float(values[row, column]))
            around = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= around
            edge += around
        faintest.append(largest)
    assert _faintest(values) == min(faintest, default=0.0)
