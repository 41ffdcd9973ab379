import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import small, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from defectlab import Detector, Patchcore, Prediction, load_backbone
from defectlab.backbones.backbone import Backbone
from defectlab.inference.prediction_files import predict_to_folder
from defectlab.results.run.run import Run
from defectlab_runtime.decision import round_down
from defectlab_runtime.errors import DataError, InputError
from defectlab_runtime.imagenet import IMAGENET_MEAN
from defectlab_runtime.images import read_image
from defectlab_runtime.normalization import normalize_percent, percent_window
from defectlab_runtime.overlays import contour, overlay


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("project")
    return trained(small("padim"), make_parts(folder / "parts"), folder / "results")


@pytest.fixture(scope="module")
def detector(run: Run) -> Detector:
    return Detector.load(run.folder)


def test_every_kind_of_source_gives_the_same_score(run: Run, detector: Detector):
    row = run.scores("test")[0]
    path = Path(row.image_path)
    pixels = np.asarray(Image.open(path))
    sources = [path, str(path), [path], f"{path.parent}/{path.stem}.*", pixels, [pixels], pixels[None], pixels / 255.0]
    sources.append(pixels.astype(np.uint16) * 257)
    content = path.read_bytes()
    sources += [Image.open(path), content, bytearray(content), io.BytesIO(content), path.open("rb"), [Image.open(path)]]
    for source in sources:
        (prediction,) = detector.predict(source)
        assert prediction.score == pytest.approx(row.score, rel=1e-5)
        assert prediction.label == row.pred_label


def test_a_list_may_mix_paths_and_images_and_a_turned_image_is_turned(run: Run, detector: Detector, tmp_path: Path):
    path = Path(run.scores("test")[0].image_path)
    image = Image.open(path)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    unreadable: list[str] = []
    sources = [path, Image.open(tmp_path / "turned.png"), b"no image", (tmp_path / "turned.png").open("rb")]
    found = list(detector.iterate(sources, on_unreadable=lambda which, _why: unreadable.append(which)))
    assert [one.image_path for one in found] == [str(path), None, str(tmp_path / "turned.png")]
    assert len({round(one.score, 4) for one in found}) == 1
    assert unreadable == ["an image given as bytes"]


def of_a_backbone_that_is_gone() -> Backbone:
    """The ResNet-18 up to layer3 that DefectLab once trained itself, with random weights."""
    whole = load_backbone("resnet18", "random")
    spec = replace(whole.spec, name="defectlab_resnet18", layers=("layer1", "layer2", "layer3"))
    return Backbone(whole.network, spec, whole.weights)


@pytest.mark.parametrize(
    ("backbone", "mean"),
    [
        (lambda: load_backbone("efficientnet_lite0"), (0.5, 0.5, 0.5)),
        (of_a_backbone_that_is_gone, IMAGENET_MEAN),
    ],
    ids=["efficientnet_lite0", "defectlab_resnet18"],
)
def test_a_checkpoint_has_its_backbone_and_preprocessing_whatever_its_name_is_today(
    backbone: Callable[[], Backbone], mean: tuple[float, ...], parts: Path, tmp_path: Path
):
    model = Patchcore(backbone=backbone(), coreset_sampling_ratio=0.1, image_size=64)
    run = trained(model, parts, tmp_path / "results")
    detector = Detector.load(run.folder)
    assert detector.model.preprocessing.mean == mean
    for row in run.scores("test"):
        (found,) = detector.predict(row.image_path)
        assert found.score == pytest.approx(row.score, rel=1e-5)


def test_folders_are_searched_through_and_in_order(run: Run, detector: Detector):
    folder = Path(run.scores("test")[0].image_path).parents[1]
    found = detector.predict(folder)
    assert len(found) == 8
    assert [item.image_path for item in found] == sorted(item.image_path for item in found)
    rows = {row.image_path: row for row in run.scores()}
    for item in found:
        assert item.score == pytest.approx(rows[item.image_path].score, rel=1e-5)
        assert item.label == rows[item.image_path].pred_label


def test_map_and_mask_have_the_images_own_size(detector: Detector):
    pixels = np.full((50, 90, 3), 110, dtype=np.uint8)
    (prediction,) = detector.predict(pixels)
    assert prediction.anomaly_map.shape == (50, 90)
    assert prediction.mask.shape == (50, 90)
    assert np.array_equal(prediction.mask, prediction.anomaly_map > detector.pixel_threshold)
    (grey,) = detector.predict(pixels[..., 0])
    assert grey.score == pytest.approx(prediction.score, rel=1e-6)


def test_predict_learns_nothing_and_repeats(run: Run, detector: Detector):
    paths = [row.image_path for row in run.scores("test")]
    first = [item.score for item in detector.predict(paths)]
    assert [item.score for item in detector.predict(paths)] == first
    assert not any(parameter.requires_grad for parameter in detector.model.model.feature_extractor.parameters())


def test_the_records_threshold_wins_over_the_checkpoints(run: Run, tmp_path: Path):
    checkpoint = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
    checkpoint["defectlab"]["thresholds"] = {"image": 123.0, "pixel": None}
    alone = tmp_path / "model.ckpt"
    torch.save(checkpoint, alone)
    loaded = Detector.load(alone)
    assert (loaded.image_threshold, loaded.pixel_threshold) == (123.0, None)
    (prediction,) = loaded.predict(run.scores("test")[0].image_path)
    assert prediction.mask is None
    assert Detector.load(run.checkpoint).image_threshold == run.record.thresholds.image.value


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nowhere.png", DataError, "no file or folder"),
        ("*.nothing", DataError, "No images"),
        (3, InputError, "takes a file"),
        ([b"no image", 3], InputError, "takes a file.*got int"),
        (b"no image", DataError, "image given as bytes: not an image"),
        ([], DataError, "list of sources is empty"),
        (io.StringIO("text"), InputError, "got StringIO"),
        (np.zeros((4, 4, 7), dtype=np.uint8), InputError, "7"),
    ],
)
def test_bad_sources(detector: Detector, source: object, error: type, message: str):
    with pytest.raises(error, match=message):
        detector.predict(source)


def test_a_device_that_is_not_there_is_refused(run: Run):
    with pytest.raises(InputError, match="no device 'gpuu'"):
        Detector.load(run.folder, device="gpuu")
    with pytest.raises(InputError, match="none is cuda:99"):
        Detector.load(run.folder, device="cuda:99")


def test_a_truncated_image_is_named(detector: Detector, run: Run, tmp_path: Path):
    whole = Path(run.scores("test")[0].image_path).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.png"):
        detector.predict(tmp_path / "cut.png")


@pytest.mark.parametrize("content", [b"not a checkpoint", b""])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes):
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=r"is cut, damaged or changed|cannot be read as a checkpoint"):
        Detector.load(tmp_path / "model.ckpt")


def test_a_foreign_checkpoint_is_told_apart(tmp_path: Path):
    torch.save({"state_dict": {}}, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match="not written by DefectLab"):
        Detector.load(tmp_path / "model.ckpt")
    with pytest.raises(InputError, match="no checkpoint"):
        Detector.load(tmp_path / "absent.ckpt")


@pytest.mark.row("3.16")
@pytest.mark.parametrize(("view", "middle"), [("min_max", 0.5), ("percent", 100.0)])
def test_a_view_decides_as_the_raw_score_does(run: Run, detector: Detector, tmp_path: Path, view: str, middle: float):
    folder = Path(run.scores("test")[0].image_path).parents[1]
    raw, seen = detector.predict(folder), detector.predict(folder, view=view)
    assert {item.label for item in raw} == {0, 1}
    for one, other in zip(raw, seen, strict=True):
        assert other.label == one.label == int(other.score > middle)
        assert np.array_equal(other.mask, one.mask)
        assert np.array_equal(other.anomaly_map > np.float32(middle), one.mask)
        assert other.score != one.score
    predict_to_folder(run.folder, [str(folder)], tmp_path / "out", view=view)
    with (tmp_path / "out/scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) > middle for row in rows] == [row["pred_label"] == "1" for row in rows]
    assert all(len(row["score"].split(".")[1]) <= 4 for row in rows)


@pytest.mark.row("3.25")
def test_heat_maps_in_percent_share_a_window_around_the_threshold(run: Run, detector: Detector, tmp_path: Path):
    folder = Path(run.scores("test")[0].image_path).parents[1]
    predict_to_folder(run.folder, [str(folder)], tmp_path, heatmaps=True, view="percent")
    limit = detector.pixel_threshold
    window = percent_window(limit)
    assert normalize_percent([window[0], limit, window[1]], limit).tolist() == pytest.approx([50, 100, 150])
    for found in detector.predict(folder):  # one scale for all: the same raw value has the same colour in every picture
        path = Path(found.image_path)
        expected = contour(overlay(read_image(path), found.anomaly_map, *window), found.mask)
        written = tmp_path / "heatmaps" / path.relative_to(folder).with_name(f"{path.name}.png")
        assert np.array_equal(np.asarray(Image.open(written)), expected)


@pytest.mark.row("3.16")
@given(st.floats(-1e3, 1e3), st.integers(-3, 3), st.sampled_from(["min_max", "percent"]), st.sampled_from([None, 2, 4]))
@settings(max_examples=60, deadline=None)
def test_no_view_of_a_detector_flips_a_score_at_the_threshold(detector, threshold, steps, view, digits):
    score = threshold
    for _ in range(abs(steps)):
        score = float(np.nextafter(score, np.inf if steps > 0 else -np.inf))
    judge = Detector(detector.model, threshold, threshold)
    below = round_down(threshold)
    line = np.array([[below, np.nextafter(below, np.float32(np.inf))]], dtype=np.float32)
    given_ = Prediction(None, score, int(score > threshold), line, line > below)
    found = judge.normalize(given_, view, digits)
    middle = 0.5 if view == "min_max" else 100.0
    assert (found.score > middle) == (found.label == 1)
    assert (found.anomaly_map > np.float32(middle)).tolist() == [[False, True]]


def test_a_view_that_cannot_be_is_refused_before_any_image_is_read(run: Run, detector: Detector, tmp_path: Path):
    with pytest.raises(InputError, match="Did you mean 'percent'"):
        detector.predict("nowhere.png", view="percents")
    with pytest.raises(InputError, match="Available: raw, min_max, percent"):
        predict_to_folder(run.folder, "nowhere.png", tmp_path, view="cooked")
    with pytest.raises(InputError, match="no image threshold"):
        Detector(detector.model, None, None).predict("nowhere.png", view="percent")


@pytest.mark.row("4.10")
def test_a_folder_of_results(run: Run, tmp_path: Path):
    folder = Path(run.scores("test")[0].image_path).parents[1]
    predict_to_folder(run.folder, [str(folder)], tmp_path / "out", heatmaps=True, masks=True)
    with (tmp_path / "out/scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {row["split"] for row in rows} == {"predict"}
    assert {row["label"] for row in rows} == {"-1"}
    for kind in ("heatmaps", "masks"):
        pictures = sorted(path for path in (tmp_path / "out" / kind).rglob("*.png"))
        assert len(pictures) == 8, "pictures of equal file names in two folders must not overwrite each other"
        assert all(Image.open(picture).size == (64, 64) for picture in pictures)
    mask = np.asarray(Image.open(pictures[0]))
    assert set(np.unique(mask)) <= {0, 255}


def test_each_image_is_decided_at_the_thresholds_of_its_category(both, categories):
    detector = Detector.load(both.folder)
    rows = both.scores("test")
    limits = {name: one.image.value for name, one in both.record.thresholds.categories.items()}
    assert len(set(limits.values())) == 2
    found = detector.predict([row.image_path for row in rows])  # below the dataset's folders: their names tell
    assert [one.category for one in found] == [row.category for row in rows]
    assert [one.label for one in found] == [row.pred_label for row in rows]
    assert [one.label for one in found] == [int(one.score > limits[one.category]) for one in found]
    for one in detector.predict([row.image_path for row in rows], view="percent"):
        assert (one.score > 100) == (one.label == 1)
    (given,) = detector.predict(rows[0].image_path, category="nut")  # what is said wins over the folder
    assert (given.category, given.label) == ("nut", int(given.score > limits["nut"]))


def test_an_image_of_unknown_category_is_refused_before_any_is_scored(both, categories, tmp_path):
    elsewhere = tmp_path / "bolt/new.png"
    elsewhere.parent.mkdir()
    shutil.copy(categories / "bolt/test/good/000.png", elsewhere)
    detector = Detector.load(both.folder)
    known = str(categories / "bolt/test/good/001.png")
    for source in (elsewhere, [known, elsewhere], np.zeros((64, 64, 3), np.uint8)):
        with pytest.raises(InputError, match=r"serves bolt, nut.*category='bolt' \(--category\)"):
            next(detector.iterate(source))
    (found,) = Detector.load(both.folder, category="bolt").predict(elsewhere)
    assert found.score == pytest.approx(detector.predict(categories / "bolt/test/good/000.png")[0].score)
    with pytest.raises(InputError, match="Did you mean 'bolt'"):
        detector.predict(elsewhere, category="bolts")


def test_a_checkpoint_alone_has_the_thresholds_of_each_category(both, tmp_path):
    alone = tmp_path / "model.ckpt"
    shutil.copy(both.checkpoint, alone)
    detector = Detector.load(alone, verify=False)
    rows = both.scores("test")
    with pytest.raises(InputError, match="names none"):  # no run, so no folders that could tell
        detector.predict(rows[0].image_path)
    for name in ("bolt", "nut"):
        own = [row for row in rows if row.category == name]
        labels = [one.label for one in detector.predict([row.image_path for row in own], category=name)]
        assert labels == [row.pred_label for row in own]


def test_a_category_of_a_model_on_one_dataset_is_refused(run):
    with pytest.raises(InputError, match="serves one dataset, not categories"):
        Detector.load(run.folder, category="parts")
