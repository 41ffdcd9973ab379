"""The runtime's wheel, alone in an empty environment, scores images with an exported file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.exported import description, onnx_file
from PIL import Image

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    given = [str(part) for part in command]
    done = subprocess.run(given, capture_output=True, text=True, check=False, cwd=cwd, env=bare)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_the_wheel_alone_scores_an_image(tmp_path: Path):
    """It is installed by pip from the configured index, as on a PC at the line; nothing of this project is at hand."""
    run(sys.executable, "-m", "venv", tmp_path / "env")
    python = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "wheels", ROOT / "runtime")
    (wheel,) = (tmp_path / "wheels").glob("defectlab_runtime-*.whl")
    run(python, "-m", "pip", "install", "--quiet", wheel)
    listed = {one["name"].lower() for one in json.loads(run(python, "-m", "pip", "list", "--format", "json"))}
    assert {"defectlab-runtime", "numpy", "pillow", "onnxruntime"} <= listed
    assert not listed & {"defectlab", "torch", "torchvision", "anomalib", "lightning", "scipy", "matplotlib", "onnx"}

    model = onnx_file(tmp_path / "model.onnx", description(image_threshold=0.7))
    Image.fromarray(np.full((40, 50, 3), 204, np.uint8)).save(tmp_path / "part.png")
    code = "import sys, defectlab_runtime as r; print(r.Detector.load(sys.argv[1]).predict(sys.argv[2])[0].label)"
    assert run(python, "-c", code, model, tmp_path / "part.png", cwd=tmp_path).strip() == "1"
    run(python.with_name("defectlab-predict"), model, "part.png", "--heatmaps", "--output", "out", cwd=tmp_path)
    assert "part.png,predict,,-1,0.8" in (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "heatmaps" / "part.png.png").is_file()
