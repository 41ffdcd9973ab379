from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from PIL import Image
from torchvision.transforms.v2 import RandomHorizontalFlip

from defectlab.data.datasets import ImageFiles, load_image
from defectlab.data.folder import Folder
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab_runtime.errors import OptionError


def folder(root: Path, **options) -> Folder:
    return Folder(root=root, **{"num_workers": 0, "train_batch_size": 3, "eval_batch_size": 4} | options)


def ready(root: Path, **options) -> Folder:
    data = folder(root, **options)
    data.setup()
    return data


def test_splits_are_the_manifests_and_stay(parts: Path):
    data = ready(parts)
    assert (len(data.train_data), len(data.val_data), len(data.test_data)) == (8, 4, 4)
    kept = data.train_data
    data.setup("fit")
    assert data.train_data is kept
    for dataset, split in ((data.val_data, "validation"), (data.test_data, "test")):
        expected = [str(data.manifest.absolute(entry)) for entry in data.manifest.split(split)]
        assert [dataset[index].image_path for index in range(len(dataset))] == expected


def test_an_item_has_image_mask_and_label(parts: Path):
    data = ready(parts)
    items = [data.test_data[index] for index in range(len(data.test_data))]
    for item in items:
        assert item.image.shape == (3, 64, 64)
        assert item.image.dtype == torch.float32
        assert bool(item.gt_label) == ("blot" in item.image_path)
        assert int(item.gt_mask.sum()) == (14 * 14 if item.gt_label else 0)


def test_values_are_plain_anomalibs(parts: Path):
    from anomalib.data.utils import read_image as plain_read

    path = next((parts / "train/good").iterdir())
    assert torch.equal(load_image(path), plain_read(path, as_tensor=True))


def test_training_batches_are_shuffled_by_the_seed_alone(parts: Path):
    def order(seed: int, noise: int) -> list[str]:
        torch.manual_seed(noise)
        return [path for batch in ready(parts, seed=seed).train_dataloader() for path in batch.image_path]

    assert order(42, 0) == order(42, 1)
    assert order(42, 0) != order(7, 0)


@pytest.mark.parametrize(
    ("epochs", "augmentations", "times"), [(3, None, 1), (1, None, 3), (3, RandomHorizontalFlip(), 3)]
)
def test_trainings_of_many_epochs_decode_each_image_once(
    parts: Path, epochs: int, augmentations: object, times: int, monkeypatch: pytest.MonkeyPatch
):
    data, read = folder(parts, train_augmentations=augmentations), []
    monkeypatch.setattr(
        "defectlab.data.datasets.load_image", lambda path, *depth: (read.append(path), load_image(path, *depth))[1]
    )
    for size in (32, 48):  # a second model on the same images sees its own size
        module = SimpleNamespace(preprocessing=Preprocessing(size=(size, size)))
        data.trainer = SimpleNamespace(lightning_module=module, max_epochs=epochs)
        data.setup()
        read.clear()
        places = range(len(data.train_data))
        passes = [{item.image_path: item for item in map(data.train_data.__getitem__, places)} for _ in range(3)]
        assert len(read) == times * len(data.train_data)
        for path, item in passes[2].items():
            assert item.image.shape == (3, size, size)
            if augmentations is None:
                assert torch.equal(item.image, passes[0][path].image)


def test_images_that_do_not_fit_are_read_again(parts: Path, monkeypatch: pytest.MonkeyPatch):
    data, read = ready(parts), []
    data.train_data.cache_decoded(2 * data.train_data[0].image.nbytes)
    monkeypatch.setattr(
        "defectlab.data.datasets.load_image", lambda path, *depth: (read.append(path), load_image(path, *depth))[1]
    )
    for _ in range(2):
        assert len([data.train_data[index] for index in range(len(data.train_data))]) == len(data.train_data)
    kept = 2 * len(data.train_data) - len(read)
    assert 1 <= kept <= 2


def test_images_of_many_sizes_make_one_batch(tmp_path: Path):
    root = make_parts(tmp_path / "parts", size=64)
    wide = np.full((40, 90, 3), 110, dtype=np.uint8)
    Image.fromarray(wide).save(root / "train/good/wide.png")
    files = ImageFiles(sorted((root / "train/good").iterdir()), Preprocessing(size=(32, 32)))
    assert files.collate_fn([files[index] for index in range(len(files))]).image.shape == (9, 3, 32, 32)


def test_without_masks_there_are_none(tmp_path: Path):
    root = make_parts(tmp_path / "parts", masks=False)
    assert ready(root).test_data[0].gt_mask is None


def test_flat_folders_by_name(parts: Path):
    data = ready(parts, name="x", normal_dir="train/good", abnormal_dir="test/blot", mask_dir="ground_truth/blot")
    # 20 % of the good images are tested, then half of the test validates
    assert data.name == "x"
    assert len(data.train_data) == 8 - int(8 * 0.2)
    assert len(data.train_data) + len(data.val_data) + len(data.test_data) == 12


def test_a_mask_of_another_size_is_brought_to_the_image(tmp_path: Path):
    root = make_parts(tmp_path / "parts")
    for path in (root / "ground_truth/blot").iterdir():
        Image.open(path).resize((32, 32), Image.Resampling.NEAREST).save(path)
    item = next(item for item in ready(root).test_data if item.gt_label)
    assert item.gt_mask.shape == (64, 64)
    assert abs(int(item.gt_mask.sum()) - 196) <= 28


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_batchsize": 3}, "train_batch_size"),
        ({"train_batch_size": 0}, "train_batch_size must be a whole number of at least 1"),
        ({"normal_split_ratio": 0.1, "test_split_ratio": 0.3}, "give one"),
        ({"root": None}, "root"),
        ({"val_split_mode": "synthetic"}, "synthetic"),
        ({"val_split_mode": "same_as_tset"}, "Did you mean 'same_as_test'"),
    ],
)
def test_options_are_checked(parts: Path, options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        _ = Folder(**{"root": parts} | options).manifest


def test_options_are_plain_data(parts: Path):
    data = folder(parts, normal_dir=Path("train/good"), train_augmentations=RandomHorizontalFlip())
    assert data.options["normal_dir"] == str(Path("train/good"))
    assert data.options["train_augmentations"] == "RandomHorizontalFlip(p=0.5)"
    again = Folder(**{key: value for key, value in data.options.items() if key != "train_augmentations"})
    assert again.manifest.hash == data.manifest.hash
