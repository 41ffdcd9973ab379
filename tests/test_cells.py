"""The cells that people run, as written: the design page's, and a reference notebook's with its imports changed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from helpers.datasets import make_parts

TRAINING_CELL = """
from defectlab import Engine, Folder, Patchcore, load_backbone

datamodule = Folder(name="bottle", root="data/bottle", normal_dir="train/good", normal_test_dir="test/good",
                    abnormal_dir=["test/blot"], mask_dir=["ground_truth/blot"],
                    train_batch_size=10, eval_batch_size=10, num_workers=2, seed=42)
backbone = load_backbone("resnet18", weights="weights/resnet18.pth")
model = Patchcore(backbone=backbone, layers=["layer2", "layer3"], pre_trained=False,
                  coreset_sampling_ratio=0.01, num_neighbors=3)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=datamodule)
results = engine.test(model=model, datamodule=datamodule)
"""

INFERENCE_CELL = """
from defectlab import Detector
RUN = "results/Patchcore/bottle/resnet18_layer2-layer3_0.01_3"
predictions = engine.predict(model=model, datamodule=datamodule, ckpt_path=f"{RUN}/weights/lightning/model.ckpt")
detector = Detector.load(RUN)
scored = detector.predict("data/bottle/test/blot")
"""

REFERENCE_CELL = """
import torch
import torchvision
from defectlab import Engine, Folder, Patchcore

device = "cuda" if torch.cuda.is_available() else "cpu"
train_dataset = Folder(name="custom_folder", root=ROOT, normal_dir="normal_dir", abnormal_dir="abnormal_dir",
                       mask_dir="mask_dir", train_batch_size=10, eval_batch_size=10, num_workers=2, seed=42)
weights = torch.load(PATH, map_location=device)
custom_backbone = torchvision.models.resnet18()
custom_backbone.load_state_dict(weights)
model = Patchcore(backbone=custom_backbone, layers=["layer2", "layer3"], pre_trained=False,
                  coreset_sampling_ratio=0.01, num_neighbors=3)
engine = Engine(max_epochs=1)
engine.fit(model=model, datamodule=train_dataset)
results = engine.test(model=model, datamodule=train_dataset)
CHECKPOINT = engine.best_model_path
predictions = engine.predict(model=model, datamodule=train_dataset, ckpt_path=CHECKPOINT)
"""


@pytest.fixture
def weights(own_project: Path) -> Path:
    (own_project / "weights").mkdir()
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), own_project / "weights/resnet18.pth")
    return own_project / "weights/resnet18.pth"


def test_the_design_pages_cells_run_as_written(own_project: Path, weights: Path, monkeypatch: pytest.MonkeyPatch):
    make_parts(own_project / "data/bottle")
    (own_project / "training_code").mkdir()
    monkeypatch.chdir(own_project / "training_code")  # notebooks start in their own folder
    cell: dict[str, Any] = {}
    exec(TRAINING_CELL, cell)
    exec(INFERENCE_CELL, cell)
    assert list(cell["results"][0])[:4] == ["image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"]
    by_path = {
        str(Path(path)): float(score)
        for batch in cell["predictions"]
        for path, score in zip(batch.image_path, batch.pred_score, strict=True)
    }
    scored = {item.image_path: item.score for item in cell["scored"]}
    common = by_path.keys() & scored.keys()
    assert len(common) == 2
    assert [by_path[path] for path in common] == pytest.approx([scored[path] for path in common], rel=1e-5)


def test_a_reference_cell_with_its_imports_changed(own_project: Path, weights: Path, tmp_path: Path):
    root = make_parts(tmp_path / "custom", train=20)
    for old, new in (("train/good", "normal_dir"), ("test/blot", "abnormal_dir"), ("ground_truth/blot", "mask_dir")):
        (root / old).rename(root / new)
    cell: dict[str, Any] = {"ROOT": str(root), "PATH": str(weights)}
    exec(REFERENCE_CELL, cell)
    first = cell["predictions"][0]
    assert all(getattr(first, name) is not None for name in ("image_path", "anomaly_map", "pred_label", "pred_score"))
    # the checkpoint alone, in a process that has neither the weights file nor the module
    weights.unlink()
    code = f"""
from defectlab import Detector
for item in Detector.load({cell["CHECKPOINT"]!r}).predict({[str(path) for path in first.image_path]!r}, batch_size=10):
    print(repr(item.score), item.label)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    scores, labels = np.array([line.split() for line in result.stdout.splitlines()], dtype=float).T
    assert scores.tolist() == first.pred_score.tolist()
    assert labels.tolist() == first.pred_label.int().tolist()
