import pytest
import torch

from defectlab.backbones.pretraining.crops import draw_crops
from defectlab.backbones.pretraining.images import NO_LABEL, PretrainingImages, make_pretraining_images
from defectlab.backbones.registry import IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture(scope="module")
def sheets() -> PretrainingImages:
    return make_pretraining_images(1)


def draws(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shapes_range_and_determinism(sheets: PretrainingImages) -> None:
    crops = draw_crops(sheets, 6, 48, colour=1.0, draws=draws())
    assert crops.images.shape == (6, 3, 48, 48)
    assert (crops.fine.shape, crops.coarse.shape) == ((6, 6, 6), (6, 3, 3))
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = crops.images * std + mean
    assert float(pixels.min()) >= -1e-6
    assert float(pixels.max()) <= 1 + 1e-6
    again = draw_crops(sheets, 6, 48, colour=1.0, draws=draws())
    assert torch.equal(crops.images, again.images)
    assert torch.equal(crops.fine, again.fine)
    assert not torch.equal(crops.images, draw_crops(sheets, 6, 48, colour=1.0, draws=draws(2)).images)


def test_labels_follow_the_pixels() -> None:
    """Sheets of one colour each: where two crops are patched together, the label changes exactly with the colour."""
    levels = torch.tensor([0, 255], dtype=torch.uint8)
    images = levels[:, None, None, None].expand(2, 3, 256, 256).contiguous()
    labels = torch.arange(2)[:, None, None].expand(2, 4, 4).contiguous()
    crops = draw_crops(PretrainingImages(images, labels, torch.ones(1)), 64, 64, colour=1.0, draws=draws())
    bright = crops.images.mean(1)[:, 4::8, 4::8] > 0
    clean = crops.fine != NO_LABEL
    assert (crops.fine == 1)[~bright & clean].float().mean() < 0.1
    assert (crops.fine == 1)[bright & clean].float().mean() > 0.9
    assert len(crops.fine[clean].unique()) == 2
    # what has no label is a defect
    assert (crops.fine_defects[~clean] != 0).all()


def test_without_colour_changes_a_clean_crop_keeps_its_colours() -> None:
    images = torch.tensor([40, 90, 200], dtype=torch.uint8)[None, :, None, None].expand(2, 3, 256, 256).contiguous()
    sheets = PretrainingImages(images, torch.zeros(2, 4, 4, dtype=torch.long), torch.ones(1))
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    colours = {}
    for colour in (0.0, 1.0):
        crops = draw_crops(sheets, 400, 32, colour=colour, draws=draws())
        pixels = (crops.images * std + mean)[(crops.fine_defects == 0).all((1, 2))]
        assert len(pixels) > 8
        colours[colour] = pixels.mean((2, 3)) * 255
    expected = torch.tensor([40.0, 90.0, 200.0]).expand_as(colours[0.0])
    torch.testing.assert_close(colours[0.0], expected, atol=3.0, rtol=0)  # the noise's mean
    assert float(colours[1.0].std(0).min()) > 10
