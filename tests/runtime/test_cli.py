"""`defectlab-predict` writes what `defectlab predict` does, and ends with what helps."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.exported import description, onnx_file
from PIL import Image

from defectlab_runtime.cli import main
from defectlab_runtime.overlays import contour, overlay


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a model, two images in `images/a` and `images/b`, and a file that is none."""
    onnx_file(tmp_path / "model.onnx", description())
    for number, name in enumerate(("a/x.png", "b/x.png")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((40, 50, 3), 51 + 153 * number, np.uint8)).save(path)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    return tmp_path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_scores_pictures_and_the_reason_of_a_bad_file(folder: Path):
    output = folder / "out"
    given = [str(folder / "model.onnx"), str(folder / "images"), "--output", str(output), "--heatmaps", "--masks"]
    assert main([*given, "--threads", "1", "--batch-size", "1"]) == 1
    rows = {
        Path(row["image_path"]).relative_to(folder / "images").as_posix(): row for row in table(output / "scores.csv")
    }
    assert list(rows["a/x.png"]) == ["image_path", "split", "defect", "label", "score", "pred_label", "problem"]
    assert {name: row["pred_label"] for name, row in rows.items()} == {
        "a/x.png": "0",
        "b/x.png": "1",
        "broken.png": "-1",
    }
    assert float(rows["b/x.png"]["score"]) == pytest.approx(204 / 255, abs=1e-6)
    assert rows["broken.png"]["score"] == "nan"
    assert "not an image of a kind that is read" in rows["broken.png"]["problem"]
    written = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.png"))
    assert written == ["heatmaps/a/x.png.png", "heatmaps/b/x.png.png", "masks/a/x.png.png", "masks/b/x.png.png"]
    heat = overlay(np.full((40, 50, 3), 204, np.uint8), np.full((40, 50), np.float32(0.8)), 0.0, 1.0)
    expected = contour(heat, np.ones((40, 50), bool))
    found = np.asarray(Image.open(output / "heatmaps/b/x.png.png")).astype(int)
    assert np.abs(found - expected).max() <= 4  # a neighbouring step of the colour scale
    assert np.asarray(Image.open(output / "masks/b/x.png.png")).all()


def test_percent(folder: Path):
    output = folder / "out"
    assert (
        main([str(folder / "model.onnx"), str(folder / "images/b"), "--output", str(output), "--view", "percent"]) == 0
    )
    assert [row["score"] for row in table(output / "scores.csv")] == ["160.0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.onnx", "nowhere"], "There is no file or folder .*nowhere"),
        (["nowhere.onnx", "images"], "There is no file .*nowhere.onnx"),
        (["model.onnx", "images/broken.png"], "None of these images can be scored"),
        (["model.onnx", "images", "--strict"], "Cannot read the image .*broken.png"),
        (["model.onnx", "images", "--category", "nut"], "serves one dataset, not categories"),
        (["model.onnx", "images", "--batch-size", "0"], "batch_size must be"),
    ],
)
def test_what_cannot_work_ends_with_what_helps(folder: Path, capsys, arguments: list[str], message: str):
    model, images, *more = arguments
    assert main([str(folder / model), str(folder / images), "--output", str(folder / "out"), *more]) == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed)
    assert "Traceback" not in printed


def test_it_runs_without_torch_and_what_else_the_toolkit_needs(folder: Path):
    """In a process that cannot import any of it."""
    code = """
import sys
for name in "torch torchvision anomalib lightning scipy matplotlib pandas timm defectlab onnx rich yaml".split():
    sys.modules[name] = None
from defectlab_runtime.cli import main
sys.exit(main(sys.argv[1:]))
"""
    given = [str(folder / "model.onnx"), str(folder / "images/a"), "--heatmaps", "--output", str(folder / "o")]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 images, 0 above the threshold" in done.stderr
    assert (folder / "o/heatmaps/x.png.png").is_file()
