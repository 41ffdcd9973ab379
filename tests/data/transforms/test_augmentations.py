"""Augmented training images: what changes, that it repeats whoever reads, and passes of models that fit once."""

from pathlib import Path

import pytest
import torch
from helpers.models import data, small
from torchvision.tv_tensors import Image, Mask

from defectlab import Engine
from defectlab.data.transforms.augmentation_options import AUGMENTATIONS, check_augment
from defectlab.data.transforms.augmentations import RandomMove, build_augmentations
from defectlab.inference.detector import Detector
from defectlab.inference.nearest_patches import nearest_good_patches
from defectlab_runtime.errors import InputError, OptionError

STRONG = {"hflip": 0.5, "quarter_turns": 0.5, "rotate": 20, "brightness": 0.3, "noise": 0.05}


def test_names_and_strengths_are_checked():
    assert check_augment("hflip") == {"hflip": 0.5}
    assert list(check_augment(["noise", "rotate"])) == ["rotate", "noise"]
    assert check_augment({"rotate": 10, "hflip": None}) == {"hflip": 0.5, "rotate": 10.0}
    for wrong, words in (({"rotat": 3}, "Did you mean 'rotate'"), ({"hflip": 2}, "hflip"), ({}, "names nothing")):
        with pytest.raises(OptionError, match=words):
            check_augment(wrong)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_changes_the_image_and_keeps_its_form(name: str):
    torch.manual_seed(0)
    image, mask = Image(torch.rand(3, 32, 48)), Mask(torch.ones(32, 48, dtype=torch.uint8))
    strength = AUGMENTATIONS[name][1] / 2
    strength = 1.0 if name in ("hflip", "vflip", "quarter_turns") else strength
    changed, marked = build_augmentations({name: strength})(image, mask)
    assert changed.shape in {(3, 32, 48), (3, 48, 32)}
    assert changed.shape[-2:] == marked.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert changed.shape != image.shape or not torch.equal(changed, image)
    assert (changed.dtype, marked.dtype) == (torch.float32, torch.uint8)


def test_a_mask_moves_with_its_image():
    torch.manual_seed(3)
    spot = torch.zeros(33, 51)
    spot[10:14, 30:35] = 1
    image, mask = RandomMove(rotate=30, shift=0.1, zoom=0.2)(Image(spot.expand(3, -1, -1).clone()), Mask(spot.byte()))
    centres = [torch.nonzero(part > 0.5).float().mean(0) for part in (image[0], mask)]
    assert torch.allclose(*centres, atol=0.7)
    assert not torch.allclose(centres[0], torch.tensor([11.5, 32.0]), atol=1.0)


def test_a_turn_keeps_shapes_where_sides_differ():
    """A quarter turn by `rotate` puts a square spot where geometry says, in pixels, not in shares of the sides."""
    image = torch.zeros(3, 40, 80)
    image[:, 18:22, 58:62] = 1  # 20 pixels right of the middle
    move = RandomMove(rotate=90)
    params = {"angle": torch.deg2rad(torch.tensor(90.0)), "shift": (0.0, 0.0), "scale": 1.0}
    turned = move.transform(Image(image), params)[0]
    rows, columns = torch.nonzero(turned > 0.5).float().mean(0).tolist()
    assert (rows, columns) == pytest.approx((-0.5, 39.5), abs=1.0) or rows == pytest.approx(39.5, abs=1.0)


def test_views_are_the_seeds_alone(parts: Path):
    def views(workers: int, batch: int, noise: int) -> dict[str, list[float]]:
        torch.manual_seed(noise)
        folder = data(parts, augment=STRONG, passes=2, num_workers=workers, train_batch_size=batch)
        folder.setup()
        folder.train_data.augmentation_seed = folder.seed
        folder.train_data.augmentations = folder.train_augmentations
        found: dict[str, list[float]] = {}
        for _ in range(2):  # epochs
            for made in folder.train_dataloader():
                for path, image in zip(made.image_path, made.image, strict=True):
                    found.setdefault(path, []).append(float(image.double().sum()))
        return found

    first = views(0, 3, 0)
    assert first == views(2, 4, 1)
    assert {len(sums) for sums in first.values()} == {4}
    loader = data(parts, augment=STRONG, passes=2)
    loader.setup()
    epochs = loader.train_dataloader()
    places = [list(epochs.sampler) for _ in range(2)]
    assert sorted(places[0] + places[1]) == list(range(4 * 8))


def test_options_go_into_the_record(parts: Path):
    folder = data(parts, augment={"rotate": 10}, passes=3)
    assert folder.options["augment"] == {"rotate": 10.0}
    assert folder.options["passes"] == 3
    assert "train_augmentations" not in folder.options
    assert type(folder)(**folder.options).options == folder.options
    with pytest.raises(OptionError, match="not both"):
        data(parts, augment="hflip", train_augmentations=build_augmentations({"hflip": 0.5}))
    with pytest.raises(OptionError, match="would see the same"):
        data(parts, passes=2)


@pytest.mark.parametrize("name", ["padim", "patchcore"])
def test_models_that_fit_once_fit_on_every_pass(parts: Path, name: str):
    model, folder = small(name), data(parts, augment=STRONG, passes=3, train_batch_size=5)
    engine = Engine()
    engine.fit(model=model, datamodule=folder)
    plain = small(name)  # the same fit, done by hand
    count = len(folder.train_data)
    images = [folder.train_data[drawing * count + at].image for at in range(count) for drawing in range(3)]
    inputs = torch.stack([model.preprocessing.transform()(image) for image in images])
    plain.model.eval()
    with torch.no_grad():
        plain.model.fit(plain.model.rows(plain.model.embed(plain.model.features(inputs))))
    if name == "patchcore":
        assert torch.allclose(model.model.memory_bank, plain.model.memory_bank, atol=1e-4)
        assert model.bank_origin is None
        with pytest.raises(InputError, match="without augment"):
            nearest_good_patches(Detector.load(model.run_folder, device="cpu"), images[0].numpy().transpose(1, 2, 0))
    else:
        assert torch.allclose(model.model.gaussian.value.mean, plain.model.gaussian.value.mean, atol=1e-4)
