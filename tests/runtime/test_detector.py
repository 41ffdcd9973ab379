"""Scoring with exported files: images of every kind, thresholds with every digit, files that are refused."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.exported import description, onnx_file
from PIL import Image

from defectlab_runtime import Detector, Prediction
from defectlab_runtime.errors import DataError, DescriptionError, InputError
from defectlab_runtime.preprocessing import PreprocessingSettings
from defectlab_runtime.region import Region

Sizes = tuple[int, int]


@pytest.fixture
def model(tmp_path: Path):
    """Return a function that writes and loads a file of these settings and facts."""

    def load(settings: PreprocessingSettings | None = None, **changes: Any) -> Detector:
        return Detector.load(onnx_file(tmp_path / "model.onnx", description(settings, **changes)), threads=1)

    return load


def an_image(size: Sizes, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def expected(detector: Detector, image: np.ndarray) -> tuple[float, np.ndarray]:
    """Return score and map on the input of the tiny graph for one image."""
    prepared = detector.prepare(image)
    crop = detector.preprocessing.crop
    if crop:
        top, left = ((whole - part) // 2 for whole, part in zip(prepared.shape[1:], crop, strict=True))
        prepared = prepared[:, top : top + crop[0], left : left + crop[1]]
    anomaly_map = prepared.mean(0)
    return float(anomaly_map.max()), anomaly_map


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (3, 70), (16, 16), (100, 60), (301, 333)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"keep_aspect": True},
        {"crop": (20, 16)},
        {"interpolation": "bicubic"},
        {"interpolation": "nearest", "keep_aspect": True},
    ],
)
def test_images_of_every_size(model, size: Sizes, settings: dict[str, Any]):
    detector = model(PreprocessingSettings(size=(32, 32), **settings))
    image = an_image(size)
    (found,) = detector.predict(image)
    score, anomaly_map = expected(detector, image)
    assert found.score == pytest.approx(score, abs=1e-6)
    assert found.image_path is None
    assert found.anomaly_map.shape == size
    assert found.anomaly_map.dtype == np.float32
    on_image = detector.preprocessing.frame.to_image(anomaly_map, size)
    np.testing.assert_allclose(found.anomaly_map, on_image, atol=1e-5)
    assert found.mask is not None
    np.testing.assert_array_equal(found.mask, np.nan_to_num(found.anomaly_map) > 0.5)
    if "crop" in settings and min(size) > 16:
        assert np.isnan(found.anomaly_map[0]).all()
        assert not found.mask[0].any()


def test_a_region_and_a_valid_mask(model):
    mask = np.ones((60, 80), bool)
    mask[:, :30] = False
    detector = model(PreprocessingSettings(size=(32, 32), region=Region.of((10, 5, 70, 55), mask)))
    image = an_image((60, 80))
    image[:, :30] = 255  # nothing outside the valid mask is seen
    (found,) = detector.predict(image)
    assert found.score < 0.99
    seen = np.zeros((60, 80), bool)
    seen[5:55, 30:70] = True
    np.testing.assert_array_equal(~np.isnan(found.anomaly_map), seen)
    with pytest.raises(DataError, match="50 x 60, and the valid area is of images of 80 x 60"):
        detector.predict(an_image((60, 50)))


def test_files_of_every_kind_of_pixels(model, tmp_path: Path):
    """Grey, 16-bit, RGBA, palette and dark 8-bit files: each is what its pixels say, whatever its largest value is."""
    detector = model()
    dark = np.ones((40, 40, 3), np.uint8)
    deep = np.full((40, 40), 32768, np.uint16)
    transparent = np.dstack([np.full((40, 40, 3), 51, np.uint8), np.zeros((40, 40), np.uint8)])
    files = {
        "dark.png": (Image.fromarray(dark), 1 / 255),
        "black.png": (Image.fromarray(dark * 0), 0.0),
        "grey.png": (Image.fromarray(dark[..., 0] * 102), 102 / 255),
        "deep.png": (Image.fromarray(deep), 32768 / 65535),
        "alpha.png": (Image.fromarray(transparent), 51 / 255),
        "palette.png": (Image.fromarray(dark * 204).convert("P"), None),
        "turned.jpg": (Image.fromarray(dark[:, :20] * 153), 153 / 255),
    }
    for name, (picture, score) in files.items():
        picture.save(tmp_path / name)
        (found,) = detector.predict(tmp_path / name)
        if score is None:
            score = np.asarray(picture.convert("RGB"))[0, 0].mean() / 255
        assert found.score == pytest.approx(score, abs=3e-3 if name.endswith("jpg") else 1e-6), name
        assert found.label == int(found.score > 0.5)
        assert found.image_path == str(tmp_path / name)


def test_values_of_twelve_bits(model, tmp_path: Path):
    detector = model(PreprocessingSettings(size=(32, 32), bit_depth=12))
    Image.fromarray(np.full((40, 40), 4095, np.uint16)).save(tmp_path / "bright.png")
    assert detector.predict(tmp_path / "bright.png")[0].score == 1.0
    with pytest.raises(InputError, match="bit_depth 12 ends at 4095"):
        detector.predict(np.full((40, 40), 4096, np.uint16))


def test_all_ways_to_give_an_image_are_one(model, tmp_path: Path):
    detector = model()
    image = an_image((50, 40))
    file = tmp_path / "é.png"
    Image.fromarray(image).save(file)
    content = file.read_bytes()
    sources = [str(file), file, content, io.BytesIO(content), Image.open(file), image, image / np.float32(255)]
    scores = [detector.predict(source)[0].score for source in [*sources, tmp_path, str(tmp_path / "*.png")]]
    assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-6)
    assert len(detector.predict(np.stack([image, image]))) == 2
    assert len(detector.predict([file, file, str(file)])) == 1
    with pytest.raises(InputError, match=r"predict takes a file, .* got int"):
        detector.predict(3)


def test_a_batch_gives_what_its_images_give_alone(model):
    detector = model()
    images = [an_image((20 + 7 * number, 40), number) for number in range(7)]
    alone = [detector.predict(image)[0] for image in images]
    for batch_size in (1, 2, 3, 7, 20):
        together = detector.predict(images, batch_size)
        assert [one.score for one in together] == [one.score for one in alone]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)


def test_one_bad_file_never_ends_the_others(model, tmp_path: Path):
    detector = model(PreprocessingSettings(size=(32, 32), region=Region.of((0, 0, 30, 30), None)))
    files = [tmp_path / name for name in ("a.png", "b.png", "c.png", "d.png", "gone.png")]
    for file in files[:3]:
        Image.fromarray(an_image((40, 40))).save(file)
    files[1].write_bytes(files[0].read_bytes()[:200])
    Image.fromarray(an_image((20, 20))).save(files[3])  # too small for the region
    problems: dict[str, str] = {}
    found = list(detector.iterate(list(map(str, files)), on_unreadable=problems.__setitem__, batch_size=2))
    assert [Path(one.image_path or "").name for one in found] == ["a.png", "c.png"]
    assert {Path(path).name for path in problems} == {"b.png", "d.png", "gone.png"}
    with pytest.raises(DataError):
        detector.predict(files[:2])


def test_thresholds_keep_every_digit(model):
    """A score exactly at the threshold is good, one float beside it is not; map values alike."""
    image = an_image((32, 32))
    (raw,) = model().predict(image)
    below = math.nextafter(raw.score, -math.inf)
    for threshold, label in [(raw.score, 0), (below, 1), (math.nextafter(raw.score, math.inf), 0)]:
        (found,) = model(image_threshold=threshold, pixel_threshold=threshold).predict(image)
        assert found.label == label
        assert found.mask is not None
        assert found.mask.sum() == label * (raw.anomaly_map == np.float32(raw.score)).sum()


def test_without_a_threshold_nothing_is_decided(model):
    for threshold in (None, math.nan):
        detector = model(image_threshold=threshold, pixel_threshold=threshold)
        (found,) = detector.predict(an_image((32, 32)))
        assert found.label == -1
        assert found.mask is None
        with pytest.raises(InputError, match="no image threshold"):
            detector.predict(an_image((32, 32)), view="percent")


def test_views_are_those_of_the_run(model):
    image = an_image((32, 32))
    detector = model()
    (raw,), (percent,), (min_max,) = (detector.predict(image, view=view) for view in ("raw", "percent", "min_max"))
    assert percent.score == pytest.approx(raw.score / 0.5 * 100, rel=1e-6)
    assert min_max.score == pytest.approx(raw.score, rel=1e-6)
    assert raw.label == percent.label == min_max.label == 1
    assert detector.heat_range == (0.0, 1.0)
    assert model(relative_maps=True, pixel_threshold=0.3).heat_range == (0.0, 0.6)


def test_a_model_without_maps(model):
    (found,) = model(has_maps=False).predict(an_image((40, 50)))
    assert np.isnan(found.anomaly_map).all()
    assert found.anomaly_map.shape == (40, 50)
    assert found.mask is not None
    assert not found.mask.any()


def test_several_categories_have_thresholds_of_their_own(tmp_path: Path):
    about = description(
        image_threshold=None, pixel_threshold=None, categories={"nut": (0.1, 0.2), "screw": (2.0, None)}
    )
    file = onnx_file(tmp_path / "model.onnx", about)
    detector = Detector.load(file)
    image = an_image((32, 32))
    assert [detector.predict(image, category=name)[0].label for name in ("nut", "screw")] == [1, 0]
    assert Detector.load(file, category="screw").predict(image)[0].category == "screw"
    with pytest.raises(InputError, match="serves nut, screw, each with thresholds of its own"):
        detector.predict(image)
    with pytest.raises(InputError, match="Did you mean 'nut'"):
        Detector.load(file, category="nuts")


def test_half_the_batch_when_memory_ends(model, monkeypatch: pytest.MonkeyPatch):
    detector = model()
    run, sizes = detector.graph.run, []

    def limited(images: np.ndarray) -> Any:
        sizes.append(len(images))
        if len(images) > 2:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
        return run(images)

    monkeypatch.setattr(detector.graph, "run", limited)
    found: list[Prediction] = detector.predict([an_image((32, 32), seed) for seed in range(6)], batch_size=5)
    assert len(found) == 6
    assert sizes == [5, 2, 2, 1, 1]


def test_files_that_are_refused(tmp_path: Path):
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="There is no file"):
        Detector.load(path)
    with pytest.raises(InputError, match=r"known are \.onnx, \.xml"):
        Detector.load(tmp_path / "model.ckpt")
    path.write_bytes(b"no model")
    with pytest.raises(InputError, match="cannot be opened as an ONNX model"):
        Detector.load(path)
    onnx_file(path, description())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be opened as an ONNX model"):
        Detector.load(path)
    with pytest.raises(DescriptionError, match="DefectLab did not export it"):
        Detector.load(onnx_file(path, None))
    with pytest.raises(DescriptionError, match="is damaged: Expecting property"):
        Detector.load(onnx_file(path, "{"))
    newer = json.dumps(json.loads(description().to_json()) | {"format": 2})
    with pytest.raises(DescriptionError, match="update defectlab-runtime"):
        Detector.load(onnx_file(path, newer))
    with pytest.raises(DescriptionError, match=r"\(2, 3, 32, 32\) and not \(any, 3, 32, 32\)"):
        Detector.load(onnx_file(path, description(), batch=2))
    other = replace(description(), preprocessing=PreprocessingSettings(size=(16, 16)).to_dict()).to_json()
    with pytest.raises(DescriptionError, match=r"images has the shape \(any, 3, 32, 32\) and not \(any, 3, 16, 16\)"):
        Detector.load(onnx_file(path, other))
    with pytest.raises(DescriptionError, match="there is no map"):
        Detector.load(onnx_file(path, description().to_json(), maps=False))
    with pytest.raises(InputError, match="Unknown device 'gpu'"):
        Detector.load(onnx_file(path, description()), device="gpu")
    with pytest.raises(InputError, match="threads must be"):
        Detector.load(path, threads=0)


def test_openvinos_pair_says_what_onnx_says(tmp_path: Path):
    openvino = pytest.importorskip("openvino")
    about = description(image_threshold=0.1 + 0.2, pixel_threshold=math.nan)
    file = onnx_file(tmp_path / "model.onnx", about)
    exported = openvino.Core().read_model(file)
    exported.set_rt_info(about.to_json(), "defectlab")
    openvino.save_model(exported, tmp_path / "pair.xml", compress_to_fp16=False)
    one, other = Detector.load(file), Detector.load(tmp_path / "pair.xml", threads=1)
    assert other.description.image_threshold == 0.1 + 0.2
    assert other.pixel_threshold is None
    images = [an_image((32, 32), seed) for seed in range(3)]
    for left, right in zip(one.predict(images), other.predict(images, batch_size=2), strict=True):
        assert right.score == pytest.approx(left.score, abs=1e-6)
        np.testing.assert_allclose(right.anomaly_map, left.anomaly_map, atol=1e-6)
    (tmp_path / "pair.bin").unlink()
    with pytest.raises(InputError, match=r"pair\.bin is missing"):
        Detector.load(tmp_path / "pair.xml")
