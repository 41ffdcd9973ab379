import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import CenterCrop, Compose, GaussianBlur, Normalize, Resize
from torchvision.tv_tensors import Mask

from defectlab.backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab_runtime.errors import OptionError


def test_the_transform_is_anomalibs_own():
    image = torch.rand(3, 90, 120)
    plain = Compose([Resize((64, 64), antialias=True), CenterCrop((48, 48)), Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    ours = Preprocessing(size=(64, 64), crop=(48, 48)).transform()
    assert torch.equal(ours(image), plain(image))


def test_plain_data_and_transform_give_the_same_settings_back():
    settings = Preprocessing((64, 32), (48, 30), keep_aspect=True, mean=(0.1, 0.2, 0.3), interpolation="bicubic")
    assert Preprocessing.from_dict(settings.to_dict()) == settings
    assert Preprocessing.from_transform(settings.transform()) == settings


def test_the_hash_follows_every_field():
    variants = [
        Preprocessing(),
        Preprocessing(size=(128, 128)),
        Preprocessing(crop=(224, 224)),
        Preprocessing(keep_aspect=True),
        Preprocessing(mean=(0.5, 0.5, 0.5)),
        Preprocessing(std=(0.5, 0.5, 0.5)),
        Preprocessing(interpolation="bicubic"),
    ]
    assert len({variant.hash for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": (0, 10)}, "image_size"),
        ({"size": (10, 10), "crop": (20, 20)}, "center_crop"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
        ({"interpolation": "lanczos"}, "bilinear"),
    ],
)
def test_what_cannot_work_is_refused(options: dict, word: str):
    with pytest.raises(OptionError, match=word):
        Preprocessing(**options)


def test_a_transform_that_cannot_be_undone_is_refused():
    with pytest.raises(OptionError, match="GaussianBlur"):
        Preprocessing.from_transform(Compose([Resize((64, 64)), GaussianBlur(3)]))
    with pytest.raises(OptionError, match="Resize"):
        Preprocessing.from_transform(Normalize(IMAGENET_MEAN, IMAGENET_STD))


def test_letterbox_fits_the_image_and_fills_with_the_mean():
    settings = Preprocessing(size=(64, 64), keep_aspect=True)
    image = torch.ones(3, 30, 60)
    out = settings.resize()(image)
    assert out.shape == (3, 64, 64)
    assert torch.allclose(out[:, 16:48], torch.ones(3, 32, 64))
    assert torch.allclose(out[:, 0, 0], torch.tensor(IMAGENET_MEAN))
    mask = settings.resize()(Mask(torch.ones(30, 60, dtype=torch.uint8)))
    assert mask.sum() == 32 * 64
    assert settings.resize()(out) is out


@pytest.mark.parametrize(
    "options", [{}, {"keep_aspect": True}, {"crop": (40, 40)}, {"crop": (40, 48), "keep_aspect": True}]
)
def test_a_map_lands_where_the_image_had_it(options: dict):
    """A bright spot goes through the transform as an image and back as a map: its centre must not move."""
    settings = Preprocessing(size=(64, 64), mean=(0.0,) * 3, std=(1.0,) * 3, **options)
    image = torch.zeros(3, 100, 160)
    image[:, 44:56, 70:86] = 1.0
    back = settings.to_image(settings.transform()(image)[:1], (100, 160))[0].nan_to_num(0)
    rows, columns = np.nonzero(back.numpy() > 0.5)
    assert back.shape == (100, 160)
    assert abs(rows.mean() - 49.5) < 1.0
    assert abs(columns.mean() - 77.5) < 1.5


def test_what_a_crop_cut_away_is_not_a_number():
    settings = Preprocessing(size=(64, 64), crop=(32, 32))
    back = settings.to_image(torch.zeros(1, 32, 32), (64, 64))[0]
    assert back.isnan()[0, 0]
    assert back.isfinite().sum() == 32 * 32


def test_resizing_a_map_agrees_with_an_independent_bilinear_resize():
    values = np.random.default_rng(0).random((8, 8), dtype=np.float32)
    ours = Preprocessing(size=(8, 8)).to_image(torch.from_numpy(values)[None], (32, 32))[0].numpy()
    pillow = np.asarray(Image.fromarray(values).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.abs(ours - pillow).max() < 1e-5
