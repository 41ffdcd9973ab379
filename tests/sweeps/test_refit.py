"""Checkpoints of a sweep: which are kept, how the best is chosen, and that they give the sweep's own scores."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.sweeps import settings

import defectlab.backbones.extractor as extractor
from defectlab import Detector
from defectlab.backbones.feature_cache.extraction import BATCH
from defectlab.experiment import Experiment, run
from defectlab.results.run.run import find_runs
from defectlab.results.workbook import read_workbook
from defectlab.sweeps.checkpoints import checkpoint_policy
from defectlab.sweeps.result import SweepResult
from defectlab.sweeps.sweep import sweep
from defectlab_runtime.decision import round_down
from defectlab_runtime.errors import OptionError
from defectlab_runtime.scores import ScoreRow

MEMORY_BANKS = [
    {"model.name": "patchcore", "model.layers": [["layer2", "layer3"]], "model.coreset_sampling_ratio": [0.1, 0.3],
     "model.num_neighbors": [3]},
    {"model.name": "padim", "model.layers": [["layer2", "layer3"]], "model.n_features": [6, 20]},
]  # fmt: skip
TRAINED = [
    {"model.name": "featcae", "model.layers": [["layer1"], ["layer2"]], "model.latent_dim": [4, 8],
     "model.border": [1], "trainer.max_epochs": [2]},
    {"model.name": "cflow", "model.layers": [["layer2"]], "model.coupling_blocks": [2], "trainer.max_epochs": [2]},
]  # fmt: skip


@pytest.fixture(scope="module")
def done(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepResult, list[int]]:
    """A sweep of every kind of model, without checkpoints, in a project of its own; read only."""
    home = tmp_path_factory.mktemp("refit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTLAB_HOME", str(home))
        passes: list[int] = []
        real = extractor.FeatureExtractor.forward
        patch.setattr(extractor.FeatureExtractor, "forward", lambda self, x: (passes.append(len(x)), real(self, x))[1])
        result = sweep(settings(parts, grid=MEMORY_BANKS + TRAINED))
    return home, result, passes


@pytest.fixture
def copy(done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that project, to write to."""
    shutil.copytree(done[0], tmp_path / "copy")
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path / "copy"))
    return tmp_path / "copy"


@pytest.mark.row("S.3")
def test_trained_models_take_the_shared_features_and_train_as_alone(
    done: Any, parts: Path, monkeypatch: pytest.MonkeyPatch
):
    home, result, passes = done
    assert not result.failed
    counted = len([path for path in parts.rglob("*.png") if "ground_truth" not in path.parts])
    assert sum(count for count in passes if count > 1) == counted + BATCH  # the plan times a batch; shapes take one
    monkeypatch.setenv("DEFECTLAB_HOME", str(home))
    for label in ("FeatCae resnet18_layer1_4", "Cflow resnet18_layer2"):
        own = next(one for one in result.runs if label in f"{one.model} {one.folder.name}")
        data = {key: value for key, value in own.record.experiment.to_dict().items() if key != "name"}
        data["model"] = {key: value for key, value in data["model"].items() if key != "center_crop"}
        data["trainer"] = {"accelerator": "cpu", "max_epochs": 2, "default_root_dir": str(home / "single")}
        data["backbone"] = {"name": "resnet18", "weights": "random"}
        monkeypatch.setenv("DEFECTLAB_WORKBOOK", str(home / "other.xlsx"))
        alone = run(Experiment.from_dict(data))
        assert alone.record.run_id == own.record.run_id
        for split in ("validation", "test"):
            ours, theirs = own.scores(split), alone.scores(split)
            assert [one.image_path for one in ours] == [one.image_path for one in theirs]
            np.testing.assert_allclose([one.score for one in ours], [one.score for one in theirs], rtol=1e-4)


@pytest.mark.row("S.6")
def test_a_checkpoint_made_later_gives_the_sweeps_scores(copy: Path, parts: Path, monkeypatch: pytest.MonkeyPatch):
    names = ["BEST", "Padim resnet18_layer2-layer3_20", "1", "resnet18_layer2-layer3_0.3_3"]
    before = {one.record.run_id: one.scores() for one in find_runs()}
    result = sweep(settings(parts, grid=MEMORY_BANKS + TRAINED), refit=names)
    assert result.checkpoints.problems == () or result.checkpoints.problems == []
    assert {one.status for one in result.outcomes} == {"kept"}
    wanted = {one.record.run_id for one in result.checkpoints.runs}
    assert {one.record.run_id for one in find_runs() if one.checkpoint.is_file()} == wanted
    assert len(wanted) >= 3
    for own in result.checkpoints.runs:
        assert own.scores() == before[own.record.run_id]
        predictions = Detector.load(own.folder).predict(sorted((parts / "test").rglob("*.png")))
        found = {str(one.image_path): one for one in predictions}
        image, pixel = (own.record.thresholds.by_level[level].value for level in ("image", "pixel"))
        maps = own.maps("test")
        for place, row in enumerate(own.scores("test")):
            (one,) = [value for path, value in found.items() if path.endswith(row.image_path)]
            assert one.score == pytest.approx(row.score, rel=1e-4)
            assert one.label == bool(row.pred_label)
            np.testing.assert_allclose(one.anomaly_map, maps[place], rtol=2e-4, atol=2e-4)
        saved = torch.load(own.checkpoint, weights_only=False)["defectlab"]["thresholds"]
        assert saved["image"] == float(round_down(image))
        assert saved["pixel"] == float(round_down(pixel))
    best = next(one for one in result.checkpoints.runs if one.record.sweep.refit.metric is not None)
    assert best.folder == result.best().folder
    assert best.record.sweep.refit.oracle is False
    row = next(row for row in read_workbook() if row["run_id"] == best.record.run_id)
    assert row["chosen"] == "best of 9 by image_AUROC of the validation images"
    assert row["checkpoint"]
    (named,) = [one for one in result.checkpoints.runs if one.folder.name.endswith("0.3_3")]
    assert named.record.sweep.refit.to_dict() == {"named": "resnet18_layer2-layer3_0.3_3"}
    kept = {one.record.run_id: one.checkpoint.stat().st_mtime_ns for one in result.checkpoints.runs}
    again = sweep(settings(parts, grid=MEMORY_BANKS + TRAINED), refit=["BEST"])
    (one,) = again.checkpoints.runs
    assert one.checkpoint.stat().st_mtime_ns == kept[one.record.run_id]  # made once
    assert {one.record.run_id for one in find_runs() if one.checkpoint.is_file()} == wanted


def test_a_trained_model_is_trained_again(copy: Path, parts: Path):
    grid = [{**TRAINED[0], "model.layers": [["layer1"]], "model.latent_dim": [4]}]
    (own,) = [one for one in find_runs() if one.folder.name.startswith("resnet18_layer1_4")]
    assert not own.checkpoint.is_file()  # checkpoints: none
    result = sweep(settings(parts, grid=grid), refit=[str(own.folder)])
    (made,) = result.checkpoints.runs
    assert made.checkpoint.is_file()
    assert made.record.sweep.number == own.record.sweep.number
    np.testing.assert_allclose([one.score for one in made.scores()], [one.score for one in own.scores()], rtol=1e-6)


def test_all_keeps_all_and_what_fits_no_more_is_said(copy: Path, parts: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "defectlab")
    result = sweep(settings(parts, grid=MEMORY_BANKS[1:], checkpoints=None))
    assert "checkpoints: all, since all 2 would take about 0.0 GB" in caplog.text
    assert len(result.checkpoints.runs) == 2
    one = result.checkpoints.runs[0]
    one.checkpoint.unlink()
    rows = one.scores()
    one.write_scores([ScoreRow(*list(vars(row).values())[:4], row.score * 1.1, row.pred_label) for row in rows])
    changed = sweep(settings(parts, grid=MEMORY_BANKS[1:], checkpoints="all"))
    assert changed.checkpoints.problems
    assert "gives other scores than its record has" in caplog.text
    assert not one.checkpoint.is_file()
    with pytest.raises(OptionError, match="Did you mean 'resnet18_layer2-layer3_20'"):
        sweep(settings(parts, grid=MEMORY_BANKS[1:]), refit=["resnet18_layer2-layer3_21"])
    assert checkpoint_policy("none", []) == "none"


@pytest.mark.row("S.7")
def test_one_grid_for_the_pixels_of_several_image_sizes(parts: Path):
    grid = [
        {
            "model.name": "padim",
            "model.layers": [["layer2"]],
            "model.n_features": [5],
            "model.image_size": [[64] * 2, [96] * 2],
        }
    ]
    result = sweep(settings(parts, grid=grid, model={}))
    assert [one.maps("test").shape[1:] for one in result.runs] == [(64, 64), (96, 96)]  # type: ignore[union-attr]
    assert [one.record.evaluation.grid for one in result.runs] == [[96, 96], [96, 96]]
    assert all(one.record.metrics["pixel_AUROC"] is not None for one in result.runs)
