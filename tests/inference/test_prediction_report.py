"""All outputs of a prediction run, and what they say."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.models import small, trained
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score

from defectlab import Detector, report_predictions
from defectlab.cli import main
from defectlab.inference.expected_labels import comparison
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError


@pytest.fixture(scope="module")
def run(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(small("padim"), parts, tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def detector(run: Run) -> Detector:
    return Detector.load(run.folder)


@pytest.fixture
def images(parts: Path, tmp_path: Path) -> Path:
    """Four good images, four with blots, one of which lies among the good ones, and one of no known kind."""
    root = tmp_path / "shift"
    shutil.copytree(parts / "test", root)
    (root / "blot/000.png").rename(root / "good/swapped.png")
    (root / "unknown").mkdir()
    shutil.copy(root / "good/000.png", root / "unknown/000.png")
    return root


def read(output: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    with (output / "scores.csv").open(newline="") as file:
        return json.loads((output / "anomaly_test_output.json").read_text()), list(csv.DictReader(file))


@pytest.mark.row("3.24")
def test_the_json_says_what_the_scores_do(run: Run, detector: Detector, images: Path, tmp_path: Path):
    assert report_predictions(detector, images, tmp_path / "out") == tmp_path / "out/anomaly_test_output.json"
    report, rows = read(tmp_path / "out")
    limit = run.record.thresholds.image.value
    assert (report["threshold"], report["unnormalized_threshold"]) == (100.0, limit)
    assert report["threshold_source"] == "training"
    known = [row for row in rows if row["label"] != "-1"]
    labels = [int(row["label"]) for row in known]
    predicted = [int(float(row["score"]) > limit) for row in known]
    assert report["f1_score"] == pytest.approx(f1_score(labels, predicted))
    confusion = report["metrics"]["confusion_matrix"]
    assert confusion == {"class_labels": ["good", "defect"], "matrix": confusion_matrix(labels, predicted).tolist()}
    assert len(report["observations"]) == len(rows) == 9
    for one, row in zip(report["observations"], rows, strict=True):
        assert set(one) == {
            "image_path", "file_name", "expectation", "prediction", "prediction_mask", "prediction_heatmap",
            "is_correct", "anomaly_score",
        }  # fmt: skip
        assert (float(one["anomaly_score"]) > 100) == (float(row["score"]) > limit)
        assert one["anomaly_score"] == f"{float(one['anomaly_score']):.3f}"
        assert one["expectation"] == {"0": "good", "1": "defect", "-1": ""}[row["label"]]
        unknown = row["label"] == "-1"
        assert one["is_correct"] == (None if unknown else row["label"] == row["pred_label"])
        for key in ("prediction_mask", "prediction_heatmap"):
            assert Image.open(tmp_path / "out" / one[key]).size == (64, 64)
    (wrong,) = [one for one in report["observations"] if one["is_correct"] is False]
    assert wrong["file_name"] == "swapped.png"
    good = [float(row["score"]) for row in known if row["label"] == "0"]
    bad = [float(row["score"]) for row in known if row["label"] == "1"]
    overlap = sum(min(bad) <= score <= max(good) for score in good + bad)
    assert report["metrics"]["overlapping_scores"] == overlap
    assert Image.open(tmp_path / "out/cumulative_histogram.png").width > 300


@pytest.mark.row("3.17", "3.25")
def test_pictures_are_on_the_fixed_scale(detector: Detector, images: Path, tmp_path: Path):
    from matplotlib import colormaps

    report_predictions(detector, images / "blot/001.png", tmp_path / "out")
    (found,) = detector.predict(images / "blot/001.png")
    drawn = np.asarray(Image.open(tmp_path / "out/heatmaps/unknown/001.png")).astype(int)
    percent = found.anomaly_map / detector.pixel_threshold * 100
    unit = np.clip((percent - 50) / 100, 0, 1)[..., None]
    colours = np.floor(colormaps["inferno"](unit[..., 0])[..., :3] * 255)
    image = np.asarray(Image.open(images / "blot/001.png")).astype(float)
    expected = image * (1 - 0.75 * unit) + colours * 0.75 * unit
    assert np.abs(drawn - expected).max() <= 2
    mask = np.asarray(Image.open(tmp_path / "out/segmentations/unknown/001.png")) > 0
    assert np.array_equal(mask, found.mask)


@pytest.mark.row("3.17")
def test_only_wrong_ones_and_panels(run: Run, images: Path, tmp_path: Path):
    arguments = [str(run.folder), str(images), "--output", str(tmp_path / "out")]
    assert main(["predict", *arguments, "--report", "--only-wrong", "--panels"]) == 0
    pictures = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert pictures == [
        "cumulative_histogram.png", "heatmaps/good/swapped.png", "images/wrong/good/swapped.png",
        "predictions/good/swapped.png", "segmentations/good/swapped.png",
    ]  # fmt: skip
    report, rows = read(tmp_path / "out")
    assert len(rows) == 9
    assert sum(one["prediction_mask"] != "" for one in report["observations"]) == 1


@pytest.mark.row("3.23")
def test_a_recomputed_threshold_is_the_best_on_these_images_and_says_so(
    detector: Detector, images: Path, tmp_path: Path
):
    strict = Detector(detector.model, detector.image_threshold * 3, detector.pixel_threshold)
    report_predictions(strict, images, tmp_path / "own")
    report_predictions(strict, images, tmp_path / "best", threshold="recomputed")
    (own, rows), (best, _) = read(tmp_path / "own"), read(tmp_path / "best")
    known = [row for row in rows if row["label"] != "-1"]
    scores, labels = [float(row["score"]) for row in known], [int(row["label"]) for row in known]
    reached = max(f1_score(labels, [score > cut for score in scores]) for cut in [-1.0, *sorted(scores)[:-1]])
    assert own["f1_score"] < best["f1_score"] == pytest.approx(reached)
    assert "oracle" in best["threshold_source"]
    assert best["unnormalized_threshold"] != strict.image_threshold


@pytest.mark.row("3.23")
@pytest.mark.parametrize(("percent", "kind"), [(110, "image"), (62.5, "image"), (100, "pixel")])
def test_a_threshold_of_ones_own_decides_and_leaves_the_scale(
    run: Run, detector: Detector, images: Path, tmp_path: Path, percent: float, kind: str
):
    given = [] if percent == 100 else ["--threshold", str(percent)]
    arguments = [str(run.folder), str(images), "--output", str(tmp_path / "out"), "--report", "--threshold-type", kind]
    assert main(["predict", *arguments, *given, "--device", "cpu"]) == 0
    report, rows = read(tmp_path / "out")
    own = run.record.thresholds.by_level[kind].value
    assert report["threshold"] == percent
    assert report["unnormalized_threshold"] == pytest.approx(own * percent / 100)
    for one, row in zip(report["observations"], rows, strict=True):
        score = float(row["score"])
        assert float(one["anomaly_score"]) == pytest.approx(min(score / own * 100, 1000), abs=1.1e-3)
        assert (
            (one["prediction"] == "defect") == (float(one["anomaly_score"]) > percent) == (score > own * percent / 100)
        )
    for wrong, message in (({"threshold": 0}, "above 0"), ({"threshold_type": "pixl"}, "Did you mean 'pixel'")):
        with pytest.raises(InputError, match=message):
            report_predictions(detector, images, tmp_path / "no", **wrong)


@pytest.mark.row("3.26")
def test_a_folder_of_unknown_images_works_with_a_warning(
    run: Run, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    report_predictions(run.folder, images / "unknown", tmp_path / "out", threshold="recomputed")
    report, (row,) = read(tmp_path / "out")
    assert report["f1_score"] == 0  # row 3.26
    assert report["unnormalized_threshold"] == run.record.thresholds.image.value
    assert report["metrics"]["confusion_matrix"]["matrix"] == [[0, 0], [0, 0]]
    assert report["threshold_source"] == "training"
    assert report["observations"][0]["is_correct"] is None
    assert row["label"] == "-1"
    assert "every image is unknown" in caplog.text
    assert len(report["warnings"]) == 2


def test_equal_names_do_not_overwrite_each_other(detector: Detector, images: Path, tmp_path: Path):
    sources = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        sources.append(shutil.copy(images / "good/001.png", tmp_path / folder / "x.png"))
    sources.append(Image.open(sources[0]).save(tmp_path / "a/x.bmp") or tmp_path / "a/x.bmp")
    for folder in ("c", "d/e", "d-e"):  # whatever is left of a name is told by the folders below the common one
        (tmp_path / folder).mkdir(parents=True)
        sources.append(shutil.copy(sources[0], tmp_path / folder / "x.png"))
    report_predictions(detector, sources, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out/predictions/unknown").iterdir())
    assert names == ["c-x.png.png", "d-e-x.png-2.png", "d-e-x.png.png", "x.bmp.png", "x.png", "x.png.png"]


def test_what_cannot_work_is_refused(run: Run, detector: Detector, images: Path, tmp_path: Path):
    with pytest.raises(InputError, match="Did you mean 'recomputed'"):
        report_predictions(detector, images, tmp_path / "out", threshold="recompute")
    with pytest.raises(InputError, match="no image threshold"):
        report_predictions(Detector(detector.model, None, None), images, tmp_path / "out")
    assert main(["predict", str(run.folder), str(images), "--only-wrong"]) == 2
    assert main(["predict", str(run.folder), str(images), "--report", "--masks"]) == 2
    assert not (tmp_path / "out").exists()


def test_nothing_to_compare():
    assert comparison(np.array([1.0]), np.array([-1]), 0.5)["f1_score"] == 0
    only_good = comparison(np.array([1.0, 2.0]), np.array([0, 0]), 1.5)
    assert only_good["f1_score"] == f1_score([0, 0], [0, 1], zero_division=0) == 0
    only_bad = comparison(np.array([1.0, 2.0]), np.array([1, 1]), 1.5)
    assert only_bad["f1_score"] == pytest.approx(f1_score([1, 1], [0, 1]))
    assert only_good["metrics"]["confusion_matrix"]["matrix"] == [[1, 1], [0, 0]]
