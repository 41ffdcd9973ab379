"""Images of anything: a folder of the user's, or the generated set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defectlab.data import auxiliary_images
from defectlab.data.auxiliary_images import find_auxiliary_images
from defectlab.data.samples.procedural import KINDS, procedural_image
from defectlab_runtime.errors import DataError

WORDS = {"option": "Draem: dtd_dir", "fetch": "Fetch textures from there.", "loses": "defects look like formulas"}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auxiliary_images, "IMAGES_PER_KIND", 2)
    monkeypatch.setattr(auxiliary_images, "IMAGE_SIZE", 32)


def test_the_generated_set_is_made_once_of_every_kind(own_project: Path):
    images = find_auxiliary_images(None, **WORDS)
    assert images.summary == f"{2 * len(KINDS)} generated surfaces of 32 px, seed 42"
    assert not (own_project / "data").exists(), "nothing is made before it is needed"
    files = images.files()
    assert len(files) == 2 * len(KINDS)
    assert {file.parent.name for file in files} == set(KINDS)
    first = files[0]
    wanted = procedural_image(first.parent.name, int(first.stem), seed=42, size=32)
    assert np.array_equal(np.asarray(Image.open(first)), wanted)
    before = first.stat().st_mtime_ns
    assert find_auxiliary_images(None, **WORDS).files() == files
    assert first.stat().st_mtime_ns == before
    assert [path.name for path in (own_project / "data/generated").iterdir()] == ["surfaces_18_32px_seed42"]


def test_a_folder_is_read_at_any_depth_and_named_by_what_it_holds(tmp_path: Path):
    for name in ("b/2.jpg", "a/1.png", "a/deep/3.PNG", "notes.txt", "4.bmp"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "own" / name) if name[-3:] != "txt" else None
    images = find_auxiliary_images("own", **WORDS, extensions=(".png", ".jpg"))
    assert images.summary.startswith("3 images of own, listing sha256 ")
    assert find_auxiliary_images("own", **WORDS).summary.startswith("4 images of own")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "own/a/1.png")
    assert find_auxiliary_images("own", **WORDS, extensions=(".png", ".jpg")).summary != images.summary


def test_what_is_missing_says_what_to_fetch_and_what_is_lost(tmp_path: Path):
    with pytest.raises(DataError, match=r"no folder .*absent\. Fetch textures from there\..*dtd_dir=None.*formulas"):
        find_auxiliary_images("absent", **WORDS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images \(\.png\) in .*empty\. Fetch"):
        find_auxiliary_images("empty", **WORDS, extensions=(".png",))
