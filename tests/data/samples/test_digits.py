import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from defectlab.data.samples import make_sample
from defectlab_runtime.errors import OptionError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample("digits", tmp_path_factory.mktemp("samples") / "digits")


def read(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def count(folder: Path) -> int:
    return len(list(folder.glob("*.png")))


def nearest_label(image: np.ndarray) -> int:
    # An independent way back: block means of the enlarged image against all 1797 originals.
    bunch = load_digits()
    small = image.reshape(8, 8, 8, 8).mean((1, 3)) * 16 / 255  # (64, 64) -> (8, 8)
    return int(bunch.target[((bunch.images - small) ** 2).sum((1, 2)).argmin()])


def test_defaults(root: Path):
    assert count(root / "train/good") == 120
    assert count(root / "test/good") == 60
    assert sorted(path.name for path in (root / "test").iterdir()) == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
        "good",
    ]
    assert {count(root / f"test/{digit}") for digit in range(9)} == {100}
    assert not (root / "ground_truth").exists()


@pytest.mark.row("3.10")
@pytest.mark.parametrize("folder", ["train/good", "test/good", *(f"test/{digit}" for digit in range(9))])
def test_every_image_shows_its_digit(root: Path, folder: str):
    digit = 9 if folder.endswith("good") else int(folder[-1])
    images = read(root / folder)
    assert {image.shape for image in images} == {(64, 64)}
    assert max(int(image.max()) for image in images) == 255
    assert {nearest_label(image) for image in images[:12]} == {digit}


def test_no_image_occurs_twice(root: Path):
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.png")]
    assert len(set(contents)) == len(contents)


@pytest.mark.row("3.10")
def test_good_number_and_a_limit_above_what_there_is(tmp_path: Path):
    root = make_sample("digits", tmp_path / "d", good_number=0, limit_data=10_000)
    assert count(root / "train/good") + count(root / "test/good") == 178
    assert [count(root / f"test/{digit}") for digit in range(1, 10)] == [182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert nearest_label(read(root / "train/good")[0]) == 0


def test_seed_draws_another_split(tmp_path: Path, root: Path):
    again = make_sample("digits", tmp_path / "a", limit_data=100)
    other = make_sample("digits", tmp_path / "b", seed=43)
    assert [path.read_bytes() for path in sorted(again.rglob("*.*"))] == [
        path.read_bytes() for path in sorted(root.rglob("*.*"))
    ]
    assert [image.tobytes() for image in read(other / "test/good")] != [i.tobytes() for i in read(root / "test/good")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"good_number": 10}, r"good_number must be a whole number, 0 \.\. 9, got 10"),
        ({"good_number": -1}, "good_number must be"),
        ({"good_number": "9"}, "good_number must be"),
        ({"good_number": True}, "good_number must be"),
        ({"limit_data": 0}, "limit_data must be a whole number, 1 or more, got 0"),
        ({"limit_data": 2.5}, "limit_data must be"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, int], message: str):
    with pytest.raises(OptionError, match=message):
        make_sample("digits", tmp_path / "d", **options)
    assert list(tmp_path.iterdir()) == []
