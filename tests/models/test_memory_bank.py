"""What the memory-bank models share: training images that enter the fit in several orientations."""

from pathlib import Path

import pytest
import torch
from helpers.models import data, plain_rows, small

from defectlab import Engine
from defectlab.kernels.rotation import rotate
from defectlab.models.patchcore import lightning_model
from defectlab_runtime.errors import OptionError


@pytest.mark.parametrize("batch", [2, 5])
def test_each_image_enters_the_bank_in_each_orientation(parts: Path, batch: int):
    model = small("patchcore", rotations=3, bank_sampling="random", coreset_sampling_ratio=0.5)
    dataset = data(parts, train_batch_size=batch)
    Engine(max_epochs=1, enable_progress_bar=False).fit(model=model, datamodule=dataset)
    images, _ = plain_rows(model, parts)  # in the manifest's order
    network = model.model.eval()
    with torch.no_grad():
        each = [network.embed(network.features(rotate(images, degrees))) for degrees in (0, 120, 240)]
    rows = torch.stack(each, dim=1).permute(0, 1, 3, 4, 2)  # (N, 3, h, w, C): images, then orientations
    picks, per_image = network.picks, rows.shape[2] * rows.shape[3]
    assert len(picks) == len(images) * 3 * per_image // 2
    assert torch.allclose(network.memory_bank, rows.reshape(-1, rows.shape[-1])[picks], atol=1e-5)
    origin = model.bank_origin
    assert origin is not None
    assert origin.degrees is not None
    train = [dataset.manifest.index(entry.path) for entry in dataset.manifest.split("train")]
    for row in range(0, len(picks), 7):
        place, turn = int(origin.patches[row]), round(float(origin.degrees[row]) / 120)
        found = rows[train.index(int(origin.images[row])), turn].reshape(per_image, -1)[place]
        assert torch.allclose(network.memory_bank[row], found, atol=1e-5)


def test_a_tiled_image_is_rotated_as_a_whole(parts: Path):
    """Seams of tiles lie where those of test images do."""
    model = small("patchcore", rotations=2, coreset_sampling_ratio=1.0)
    dataset = data(parts, tiling={"image_size": [96, 96]})
    Engine(max_epochs=1, enable_progress_bar=False).fit(model=model, datamodule=dataset)
    network, transform = model.model.eval(), model.preprocessing.transform()
    resize = model.preprocessing.resize()
    with torch.no_grad():
        image = transform(resize(dataset.train_data[0].image))[None]
        assert tuple(image.shape[-2:]) == (96, 96)
        upside_down = network.rows(network.embed(network.features(image.flip(-2, -1))))
    index = dataset.manifest.index(str(dataset.train_data[0].image_path))
    origin = model.bank_origin
    own = (origin.images == index) & (origin.degrees == 180)
    assert torch.allclose(network.memory_bank[own], upside_down, atol=1e-5)


def test_an_unrotated_fit_is_the_experiment_it_was(parts: Path):
    plain, named = small("patchcore"), small("patchcore", rotations=1)
    assert plain.options == named.options
    assert "rotations" not in plain.options
    engine, images = Engine(max_epochs=1), data(parts)
    assert engine.run_id(plain, images) == engine.run_id(named, images)
    assert engine.run_id(small("patchcore", rotations=2), images) != engine.run_id(plain, images)


@pytest.mark.parametrize("rotations", [0, -1, 2.0, True, 361])
def test_a_number_that_cannot_work_is_refused(rotations: object):
    with pytest.raises(OptionError, match="rotations must be a whole number of at least 1"):
        small("patchcore", rotations=rotations)


def test_padim_says_why_it_takes_none():
    with pytest.raises(OptionError, match="Gaussians belong to positions"):
        small("padim", rotations=8)
    assert "rotations" not in small("padim", rotations=1).options


def test_the_size_of_the_bank_counts_rotated_patches():
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning_model, "coreset_size", lambda count, ratio: seen.append(count))
        small("patchcore", rotations=4).check_training_images(5)
    assert seen == [5 * 4 * 8 * 8]
