"""On which grid pixel metrics are computed: the model's own, each mask's own, or a given one."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import data, small
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from defectlab import Engine, Experiment
from defectlab.evaluation.pixel.pixel_size import check_pixel_size
from defectlab.evaluation.threshold import RuleOptions
from defectlab.results.evaluate import evaluate_run
from defectlab.results.pixel_grid import pixel_images
from defectlab.results.rethreshold import set_threshold
from defectlab.results.run.run import Run
from defectlab_runtime.errors import OptionError


@pytest.mark.parametrize("wrong", ["large", 256, [256], [0, 5], [1.5, 2], [True, 2], None, [1, 2, 3]])
def test_a_pixel_size_that_cannot_be_is_refused_early(wrong: object, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"pixel_size must be input"):
        check_pixel_size(wrong)
    with pytest.raises(OptionError, match=r"pixel_size must be input"):
        Engine(default_root_dir=tmp_path, pixel_size=wrong)
    if wrong is not None:  # null in YAML is "not given"
        with pytest.raises(OptionError, match=r"pixel_size must be input"):
            Experiment.from_dict(
                {"data": {"root": "x"}, "model": {"name": "padim"}, "evaluation": {"pixel_size": wrong}}
            )


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Parts whose test images have four sizes, each mask the size of its image."""
    root = make_parts(tmp_path / "parts", train=6, good=6, bad=6)
    for number in range(6):
        size = (64 + 10 * (number % 4), 90 - 6 * (number % 4))
        for file in (f"test/good/{number:03d}.png", f"test/blot/{number:03d}.png"):
            Image.open(root / file).resize(size).save(root / file)
        mask = root / f"ground_truth/blot/{number:03d}_mask.png"
        Image.open(mask).resize(size, Image.Resampling.NEAREST).save(mask)
    return root


def reference(run: Run, root: Path, pixel_size: str | list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and masks of all test pixels, by torch and PIL, from the maps and the dataset's own files."""
    scores, marks = [], []
    for place, row in enumerate(run.scores("test")):
        name = Path(row.image_path)
        width, height = Image.open(root / "test" / row.defect / name.name).size
        mask = np.zeros((height, width), bool)
        if row.label == 1:
            mask = np.asarray(Image.open(root / "ground_truth/blot" / f"{name.stem}_mask.png")) > 0
        size = mask.shape if pixel_size == "original" else tuple(pixel_size)
        anomaly_map = torch.from_numpy(np.array(run.maps("test")[place]))[None, None]
        scores.append(torch.nn.functional.interpolate(anomaly_map, size=size, mode="bilinear").numpy().ravel())
        mask_tensor = torch.from_numpy(mask.astype(np.float32))[None, None]
        marks.append(torch.nn.functional.interpolate(mask_tensor, size=size, mode="nearest").numpy().ravel() > 0)
    return np.concatenate(scores), np.concatenate(marks)


@pytest.mark.parametrize("pixel_size", ["original", [40, 30]])
def test_pixel_metrics_on_another_grid_equal_scikit_learn(parts: Path, pixel_size: str | list[int]) -> None:
    engine = Engine(pixel_size=pixel_size)
    model = small("padim")
    engine.train(model=model, datamodule=data(parts, mask_reduction="nearest"))
    run = Run.open(model.run_folder)
    scores, marks = reference(run, parts, pixel_size)
    metrics = run.record.metrics
    assert metrics["pixel_AUROC"] == pytest.approx(roc_auc_score(marks, scores), abs=1e-6)
    assert metrics["pixel_AUPR"] == pytest.approx(average_precision_score(marks, scores), abs=1e-5)
    threshold = run.record.thresholds.pixel.value
    assert metrics["pixel_F1Score"] == pytest.approx(f1_score(marks, scores > threshold), abs=1e-3)
    grid = None if pixel_size == "original" else pixel_size
    evaluation = run.record.evaluation
    assert (evaluation.pixel_size, evaluation.grid, evaluation.mask_reduction) == (pixel_size, grid, "nearest")
    assert run.record.facts["evaluation.pixel_size"] == pixel_size

    # from the record alone: the images are gone
    shutil.rmtree(parts)
    assert evaluate_run(run)["metrics"] == metrics
    set_threshold(run, "quantile", RuleOptions(false_alarm_rate=0.3), ["pixel"])
    again = Run.open(run.folder).record
    assert again.metrics["pixel_AUROC"] == metrics["pixel_AUROC"]
    flagged = scores > again.thresholds.pixel.value
    assert again.metrics["pixel_TPR"] == pytest.approx(flagged[marks].mean(), abs=1e-3)


def test_another_grid_is_another_run_and_the_models_own_the_same_as_ever(parts: Path) -> None:
    model = small("padim")
    Engine().train(model=model, datamodule=data(parts))
    own = Run.open(model.run_folder)
    assert "evaluation.pixel_size" not in own.record.facts
    evaluation = own.record.evaluation
    assert (evaluation.pixel_size, evaluation.grid, evaluation.mask_reduction) == ("input", [64, 64], "area")
    before = own.record.metrics
    Engine(pixel_size="original", keep_maps="worst").test(
        model=small("padim"), datamodule=data(parts), ckpt_path=own.checkpoint
    )
    others = [run for run in own.folder.parent.iterdir() if run.is_dir() and run != own.folder]
    (other,) = map(Run.open, others)
    assert Run.open(own.folder).record.metrics == before
    assert other.record.metrics["image_AUROC"] == before["image_AUROC"]
    assert other.record.metrics["pixel_AUPRO"] != before["pixel_AUPRO"]
    assert not any(path.exists() for path in other.grid_paths("test"))  # they go with the maps
    kept = evaluate_run(other)["metrics"]
    assert kept == other.record.metrics


def test_another_reduction_of_the_masks_is_another_run(parts: Path) -> None:
    model = small("padim")
    Engine().train(model=model, datamodule=data(parts, mask_reduction="nearest"))
    own = Run.open(model.run_folder)
    Engine().test(model=small("padim"), datamodule=data(parts), ckpt_path=own.checkpoint)
    (other,) = (Run.open(run) for run in own.folder.parent.iterdir() if run.is_dir() and run != own.folder)
    assert Run.open(own.folder).record.evaluation.mask_reduction == "nearest"
    assert other.record.evaluation.mask_reduction == "area"


def test_masks_that_are_gone_are_said_not_guessed(parts: Path) -> None:
    model = small("padim")
    Engine(pixel_size="original").train(model=model, datamodule=data(parts))
    run = Run.open(model.run_folder)
    run.grid_paths("test")[0].unlink()
    images, reason = pixel_images(run)
    assert images is None
    assert "test_grid_masks.bin is gone" in str(reason)
