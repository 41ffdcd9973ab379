"""An exported file where the toolkit takes a run: predictions, their files, the report."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.exported import description, onnx_file
from PIL import Image

from defectlab import Detector, InputError
from defectlab.cli import main
from defectlab.inference.nearest_patches import nearest_good_patches
from defectlab.inference.prediction_report import report_predictions
from defectlab.results.run.scores import read_scores


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with `model.onnx`, and test images of which the defects are brighter."""
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path))
    onnx_file(tmp_path / "model.onnx", description())
    for kind, value in (("good", 51), ("scratch", 204)):
        (tmp_path / "test" / kind).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((40, 50, 3), value + number, np.uint8)
            pixels[:5] = 0  # not one colour, as a mask has it
            pixels[5:9] = 90
            Image.fromarray(pixels).save(tmp_path / "test" / kind / f"{number}.png")
    return tmp_path


def test_predictions_with_paths_from_the_project_root(project: Path):
    detector = Detector.load("model.onnx", device="cpu")
    assert [found.label for found in detector.predict("test")] == [0, 0, 0, 1, 1, 1]
    with pytest.raises(InputError, match="not the model: give the run name"):
        nearest_good_patches(detector, project / "test/good/0.png")


def test_the_command_predict(project: Path):
    given = ["predict", "model.onnx", str(project / "test"), "--output", str(project / "out"), "--heatmaps", "--masks"]
    assert main([*given, "--device", "cpu", "--figures", "first"]) in (None, 0)
    rows = read_scores(project / "out/scores.csv")
    assert [(row.image_path, row.pred_label) for row in rows] == [
        (f"test/{kind}/{number}.png", label) for kind, label in (("good", 0), ("scratch", 1)) for number in range(3)
    ]
    assert len(list((project / "out/heatmaps").rglob("*.png"))) == 6
    assert [path.name.startswith("parts_pre_0_") for path in (project / "out/figures").glob("*.png")] == [True]


def test_the_report(project: Path):
    content = json.loads(report_predictions("model.onnx", "test", "report", device="cpu").read_text(encoding="utf-8"))
    assert [one["is_correct"] for one in content["observations"]] == [True] * 6
    assert content["unnormalized_threshold"] == 0.5
