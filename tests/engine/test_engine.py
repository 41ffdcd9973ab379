import gc
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import data, small
from lightning.pytorch.plugins import MixedPrecision
from sklearn.metrics import f1_score, roc_auc_score

from defectlab import Engine
from defectlab.models.cflow import torch_model
from defectlab.results.evaluate import evaluate_run
from defectlab.results.run.ownership import OWNER
from defectlab.results.run.processes import this_process
from defectlab.results.run.run import Run, find_runs
from defectlab_runtime.errors import BusyError, InputError, OptionError

QUIET = {"enable_progress_bar": False}


@pytest.fixture
def tested(parts: Path):
    model = small("padim")
    engine = Engine(**QUIET)
    metrics = engine.train(model=model, datamodule=data(parts))
    return engine, model, metrics[0], Run.open(model.run_folder)


def columns(run: Run, split: str) -> tuple[np.ndarray, np.ndarray]:
    rows = run.scores(split)
    return np.array([row.score for row in rows]), np.array([row.label for row in rows])


def test_the_metrics_are_scikit_learns_on_the_raw_record(tested):
    _, _, metrics, run = tested
    scores, labels = columns(run, "test")
    thresholds = run.record.thresholds
    assert metrics["image_AUROC"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    predicted = scores > thresholds.image.value
    assert metrics["image_F1Score"] == pytest.approx(f1_score(labels, predicted), abs=1e-12)
    maps, masks = np.asarray(run.maps("test")).ravel(), run.masks("test").ravel()
    assert metrics["pixel_AUROC"] == pytest.approx(roc_auc_score(masks, maps), abs=1e-9)
    assert metrics["pixel_F1Score"] == pytest.approx(f1_score(masks, maps > thresholds.pixel.value), abs=1e-9)


def test_the_thresholds_are_the_best_on_validation_images_and_lie_between_scores(tested):
    *_, run = tested
    scores, labels = columns(run, "validation")
    threshold = run.record.thresholds.image
    assert threshold.rule == "f1"
    assert threshold.source == "validation"
    assert threshold.oracle is False
    cuts = [-np.inf, *np.unique(scores)]
    best = max(f1_score(labels, scores > cut) for cut in cuts)
    assert f1_score(labels, scores > threshold.value) == pytest.approx(best)
    assert threshold.value not in scores


@pytest.mark.row("3.2")
def test_the_record_says_everything(tested):
    *_, run = tested
    record = json.loads((run.folder / "run.json").read_text())
    for key in ("run_id", "name", "status", "error", "experiment", "dataset", "backbone", "preprocessing", "metrics"):
        assert key in record
    assert run.folder.parts[-3:] == ("Padim", "parts", "resnet18_layer1-layer2_20")
    assert record["status"] == "finished"
    assert record["dataset"]["counts"]["train"] == {"good": 8}
    assert "50%" in record["dataset"]["protocol"]["validation_from"]
    assert record["backbone"]["source"] == "random(seed=42)"
    assert set(record["timings"]) == {"fit", "validation", "test"}
    assert (run.folder / record["checkpoint"]).is_file()
    header = (run.folder / "scores.csv").read_text().splitlines()[0]
    assert header == "image_path,split,defect,label,score,pred_label"
    maps = np.load(run.folder / "maps" / "test.npy", mmap_mode="r")
    assert maps.dtype == np.float32
    assert [row.score for row in run.scores("test")] == pytest.approx(maps.max(axis=(1, 2)).tolist(), rel=1e-6)


def test_metrics_can_be_computed_again_from_the_record_alone(tested):
    _, _, metrics, run = tested
    assert evaluate_run(run)["metrics"] == metrics


def test_fit_then_test_and_train_and_a_new_kernel_agree(parts: Path, tested):
    _, _, metrics, run = tested
    model = small("padim")
    engine = Engine(**QUIET)
    engine.fit(model=model, datamodule=data(parts))
    assert engine.test(model=model, datamodule=data(parts)) == [metrics]
    assert engine.test(model=model, datamodule=data(parts), ckpt_path="best") == [metrics]
    assert engine.test(model=model, datamodule=data(parts), ckpt_path="last") == [metrics]
    # as a new kernel would: another engine, another model object, or none
    assert Engine(**QUIET).test(model=small("padim"), datamodule=data(parts), ckpt_path=run.checkpoint) == [metrics]
    assert Engine(**QUIET).test(datamodule=data(parts), ckpt_path=run.folder) == [metrics]
    assert len(find_runs()) == 1


def test_a_trained_run_is_the_engines_until_it_is_tested_or_the_engine_is_gone(parts: Path):
    model = small("padim")
    engine = Engine(**QUIET)
    engine.fit(model=model, datamodule=data(parts))
    (run,) = find_runs()
    assert (run.folder / OWNER).is_file(), "a later cell tests it"
    del engine
    gc.collect()
    assert not (run.folder / OWNER).exists()
    later = Engine(**QUIET)
    later.fit(model=small("padim"), datamodule=data(parts))
    (metrics,) = later.test(model=model, datamodule=data(parts))
    (run,) = find_runs()
    assert (run.status, run.record.metrics) == ("finished", metrics)
    assert not (run.folder / OWNER).exists()
    (run.folder / OWNER).write_text(json.dumps({**this_process(), "pid": os.getppid(), "born": None, "started": "1"}))
    before = (run.folder / "run.json").read_bytes()
    with pytest.raises(BusyError, match=f"Process {os.getppid()} of .* is running this experiment"):
        later.test(model=model, datamodule=data(parts))
    assert (run.folder / "run.json").read_bytes() == before, "another process's record"


def test_predictions_are_the_tests_scores(parts: Path, tested):
    engine, model, _, run = tested
    batches = engine.predict(model=model, datamodule=data(parts), ckpt_path=run.checkpoint)
    predicted = {
        path: (float(score), int(label))
        for batch in batches
        for path, score, label in zip(batch.image_path, batch.pred_score, batch.pred_label, strict=True)
    }
    expected = {row.image_path: (row.score, row.pred_label) for row in run.scores("test")}
    assert {str(Path(path)): value for path, value in predicted.items()} == expected
    assert batches[0].anomaly_map.shape == (4, 64, 64)
    threshold = run.record.thresholds.pixel.value
    assert bool((batches[0].pred_mask == (batches[0].anomaly_map > threshold)).all())


def test_predict_takes_files_too(parts: Path, tested):
    *_, run = tested
    batches = Engine(**QUIET).predict(ckpt_path=run.checkpoint, data_path=parts / "test/good")
    rows = {row.image_path: row.score for row in run.scores()}
    for batch in batches:
        for path, score in zip(batch.image_path, batch.pred_score, strict=True):
            assert float(score) == pytest.approx(rows[path], rel=1e-5)


def test_one_engine_trains_several_models_each_with_its_own_epochs_and_folder(parts: Path):
    engine = Engine(max_epochs=2, **QUIET)
    padim, cflow = small("padim"), small("cflow")
    for model in (padim, cflow, small("patchcore")):
        engine.train(model=model, datamodule=data(parts))
    assert Run.open(padim.run_folder).record.experiment.trainer["max_epochs"] == 1
    assert len(Run.open(cflow.run_folder).record.history["train_loss"]) == 2
    assert sorted(run.model for run in find_runs()) == ["Cflow", "Padim", "Patchcore"]


def test_a_workbook_that_cannot_be_written_is_refused_before_the_training(parts: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEFECTLAB_WORKBOOK", "team.xlsm")
    with pytest.raises(InputError, match=r"team\.xlsm: give it a name that ends in \.xlsx"):
        Engine().fit(model=small("patchcore"), datamodule=data(parts))
    assert find_runs() == []


def test_without_masks_pixel_metrics_are_missing_with_a_reason(tmp_path: Path):
    root = make_parts(tmp_path / "parts", masks=False)
    model = small("padim")
    (metrics,) = Engine(**QUIET).train(model=model, datamodule=data(root))
    record = Run.open(model.run_folder).record
    assert metrics["image_AUROC"] is not None
    assert metrics["pixel_AUROC"] is None
    assert "mask" in record.metric_reasons["pixel_AUROC"]
    assert record.thresholds.pixel.rule == "good_max"
    good = Run.open(model.run_folder)
    rows = good.scores("validation")
    highest = max(good.maps("validation")[i].max() for i, row in enumerate(rows) if row.label == 0)
    assert record.thresholds.pixel.value >= highest


def test_good_images_alone_work(tmp_path: Path):
    root = make_parts(tmp_path / "parts", train=10, good=0, bad=0)
    model = small("padim")
    engine = Engine(**QUIET)
    (metrics,) = engine.train(model=model, datamodule=data(root, normal_dir="train/good"))
    record = Run.open(model.run_folder).record
    assert record.status == "finished"
    assert set(metrics.values()) == {None}
    assert record.dataset.counts == {"train": {"good": 8}, "validation": {"good": 2}, "test": {}}
    assert record.thresholds.image.rule == "good_max"


@pytest.mark.row("3.7")
def test_validation_on_the_test_images_is_called_oracle(parts: Path):
    model = small("padim")
    Engine(**QUIET).train(model=model, datamodule=data(parts, val_split_mode="same_as_test"))
    record = Run.open(model.run_folder).record
    assert record.thresholds.image.oracle is True
    assert record.dataset.protocol.validation_is_test is True


def test_other_images_make_a_run_of_their_own(parts: Path, tested, tmp_path: Path):
    *_, run = tested
    other = make_parts(tmp_path / "other", bad=6)
    Engine(**QUIET).test(datamodule=data(other), ckpt_path=run.checkpoint)
    assert len(find_runs()) == 2
    assert Run.open(run.folder).record == run.record


def test_a_failed_run_keeps_its_error(parts: Path, monkeypatch: pytest.MonkeyPatch):
    model = small("padim")
    monkeypatch.setattr(type(model.model), "fit", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryError):
        Engine(**QUIET).fit(model=model, datamodule=data(parts))
    (run,) = find_runs()
    assert run.status == "failed"
    assert run.record.error.summary == "MemoryError: no room"
    assert not [path for path in run.folder.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chech_val_every_n_epoch": 0}, "check_val_every_n_epoch"),
        ({"max_epochs": 0}, "at least 1"),
        ({"max_epochs": 1.5}, "whole number"),
        ({"callback": []}, "callbacks"),
        ({"devices": 2}, "devices must be 1"),
        ({"precision": "16-mixed"}, "leave it at 32"),
        ({"plugins": MixedPrecision("bf16-mixed", "cpu")}, "precision among plugins"),
        ({"plugins": [MixedPrecision("bf16-mixed", "cpu")]}, "precision among plugins"),
        ({"fast_dev_run": True}, "fast_dev_run leaves no checkpoint.*limit_train_batches=1"),
        ({"fast_dev_run": 2}, "fast_dev_run leaves no checkpoint"),
        ({"strategy": "ddp"}, "on one device"),
        ({"limit_val_batches": 0}, "nothing to choose thresholds on"),
        ({"limit_train_batches": 0.0}, "nothing to train on"),
        ({"max_steps": 0}, "at least 1"),
        ({"accelerator": "mps" if torch.cuda.is_available() else "cuda"}, "this machine has none"),
        ({"devices": [99], "accelerator": "auto"}, "counted from 0"),
        ({"enable_checkpointing": False}, "checkpoint"),
        ({"keep_maps": "some"}, "all, worst, none"),
    ],
)
def test_engine_options_are_checked_first(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        Engine(**options)


@pytest.mark.parametrize(
    ("options", "validated", "note"),
    [
        ({"check_val_every_n_epoch": 5}, 1, None),
        ({"max_steps": 4}, 1, "ended after 1 of 2 whole epochs (4 steps)"),
        ({"max_steps": 2}, 0, "ended after 0 of 2 whole epochs (2 steps)"),
    ],
)
def test_a_training_that_ends_before_its_validation_is_validated_once(parts: Path, options: dict, validated, note):
    model = small("stfpm")
    Engine(max_epochs=2, **options, **QUIET).fit(model=model, datamodule=data(parts))
    record = Run.open(model.run_folder).record
    assert record.thresholds.image.rule == "f1"
    assert record.validation_epoch == validated
    assert record.notes.get("epochs") == note


def test_a_training_that_ends_before_its_first_step_fails(parts: Path):
    with pytest.raises(InputError, match="before its first step"):
        Engine(max_epochs=2, max_time="00:00:00:00", **QUIET).fit(model=small("stfpm"), datamodule=data(parts))
    (run,) = find_runs()
    assert run.status == "failed"


def test_anomalibs_export_is_refused_and_says_what_to_use(tested):
    engine, model, *_ = tested
    with pytest.raises(InputError, match=r"without its thresholds.*Detector\.load\('results/"):
        engine.export(model, "torch")


def test_what_does_not_belong_together_is_refused(parts: Path, tested):
    engine, _, _, run = tested
    with pytest.raises(InputError, match="layers"):
        engine.test(model=small("padim", layers=["layer2", "layer3"]), datamodule=data(parts), ckpt_path=run.checkpoint)
    with pytest.raises(InputError, match="model: padim there, cflow here"):
        engine.test(model=small("cflow"), datamodule=data(parts), ckpt_path=run.checkpoint)
    with pytest.raises(InputError, match="no checkpoint"):
        engine.test(model=small("padim"), datamodule=data(parts), ckpt_path="nowhere.ckpt")
    with pytest.raises(InputError, match="Folder"):
        engine.fit(model=small("padim"), train_dataloaders=[1])
    with pytest.raises(InputError, match=r"defectlab\.Padim"):
        engine.fit(model=object(), datamodule=data(parts))
    with pytest.raises(InputError, match="has not been fitted"):
        engine.test(model=small("patchcore"), datamodule=data(parts))
    with pytest.raises(InputError, match="fitted nothing"):
        Engine().test(model=small("padim"), datamodule=data(parts), ckpt_path="best")


def test_bad_images_are_refused_before_a_run_begins(tmp_path: Path):
    root = make_parts(tmp_path / "parts")
    (root / "ground_truth/blot/000_mask.png").unlink()
    with pytest.raises(InputError, match=r"000\.png"):
        Engine(**QUIET).fit(model=small("padim"), datamodule=data(root))
    assert not find_runs()


def test_memory_bank_models_say_that_they_take_one_epoch(parts: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="defectlab")
    Engine(max_epochs=5, **QUIET).fit(model=small("patchcore"), datamodule=data(parts))
    assert "max_epochs=5 is not used" in caplog.text
    assert "Coreset: " in caplog.text


def test_a_killed_fit_leaves_a_record_and_the_next_one_finishes(parts: Path, tmp_path: Path):
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from helpers.models import data, small
from defectlab import Engine
model = small("padim")
type(model.model).fit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Engine(enable_progress_bar=False).fit(model=model, datamodule=data({str(parts)!r}))
"""
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    (run,) = find_runs()
    assert run.status == "interrupted"
    model = small("padim")
    Engine(**QUIET).train(model=model, datamodule=data(parts))
    assert [run.status for run in find_runs()] == ["finished"]


def test_a_run_folder_can_be_moved(tested, tmp_path: Path):
    _, _, _, run = tested
    moved = tmp_path / "elsewhere"
    shutil.copytree(run.folder, moved)
    from defectlab import Detector

    row = run.scores("test")[0]
    assert Detector.load(moved).predict(row.image_path)[0].score == pytest.approx(row.score, rel=1e-5)


@pytest.mark.parametrize(("keep", "kept"), [("none", 0), ("worst", 4)])
def test_maps_can_be_dropped_once_the_metrics_are_there(parts: Path, tested, keep: str, kept: int):
    _, _, metrics, _ = tested
    model = small("padim")
    (again,) = Engine(keep_maps=keep, **QUIET).train(model=model, datamodule=data(parts))
    run = Run.open(model.run_folder)
    assert again == metrics
    assert evaluate_run(run)["metrics"] == metrics
    assert run.record.maps.policy == keep
    assert "pixel metrics" in run.record.maps.unavailable
    assert (len(run.maps("test")) if kept else run.maps("test") is None) == (kept or True)
    assert run.maps("validation") is None


def test_a_second_test_that_fails_takes_nothing_away(parts: Path, tested, monkeypatch: pytest.MonkeyPatch):
    engine, model, metrics, run = tested
    monkeypatch.setattr(type(model.model), "forward", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryError):
        engine.test(model=model, datamodule=data(parts))
    again = Run.open(run.folder)
    assert again.status == "finished"
    assert again.record.metrics == metrics
    assert again.record.error.summary == "MemoryError: no room"


def files(run: Run) -> dict[str, bytes]:
    return {str(path.relative_to(run.folder)): path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def test_testing_on_other_images_leaves_the_run_trained_on_them(parts: Path, tested, tmp_path: Path):
    *_, first = tested
    other = make_parts(tmp_path / "other", train=5)
    model = small("padim")
    Engine(**QUIET).train(model=model, datamodule=data(other))
    before = files(Run.open(model.run_folder))
    Engine(**QUIET).test(datamodule=data(other), ckpt_path=first.checkpoint)
    assert files(Run.open(model.run_folder)) == before
    (tested_only,) = [run for run in find_runs() if "weights-of" in run.folder.name]
    assert tested_only.folder.name.endswith(f"_weights-of-{first.record.run_id}")
    assert tested_only.record.checkpoint.endswith("model.ckpt")


def test_testing_a_copied_checkpoint_leaves_the_original(parts: Path, tested, tmp_path: Path):
    _, _, metrics, run = tested
    before = files(run)
    shutil.copy(run.checkpoint, tmp_path / "copy.ckpt")
    assert Engine(**QUIET).test(datamodule=data(parts), ckpt_path=tmp_path / "copy.ckpt") == [metrics]
    assert files(run) == before


def test_training_goes_on_from_a_failed_runs_checkpoint(parts: Path, monkeypatch: pytest.MonkeyPatch):
    model = small("cflow")
    step = type(model).training_step

    def fails_in_epoch_two(self, *args, **kwargs):
        if self.current_epoch == 2:
            raise MemoryError("no room")
        return step(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "training_step", fails_in_epoch_two)
    with pytest.raises(MemoryError):
        Engine(max_epochs=3, **QUIET).fit(model=model, datamodule=data(parts))
    monkeypatch.setattr(type(model), "training_step", step)
    (failed,) = find_runs()
    again = small("cflow")
    Engine(max_epochs=3, **QUIET).fit(model=again, datamodule=data(parts), ckpt_path=failed.checkpoint)
    (run,) = find_runs()
    assert run.status == "fitted"
    assert len(run.record.history["train_loss"]) == 1


def test_validate_changes_no_record(parts: Path, tested):
    engine, model, metrics, run = tested
    before = files(run)
    engine.validate(model=model, datamodule=data(parts), ckpt_path="best")
    assert files(run) == before
    assert engine.test(model=model, datamodule=data(parts)) == [metrics]


@pytest.mark.parametrize("options", [{"num_neighbors": 1}, {"keep_aspect": True}, {"precision": "float16"}])
def test_a_checkpoint_is_not_tested_with_other_settings(parts: Path, options: dict):
    model = small("patchcore")
    Engine(**QUIET).fit(model=model, datamodule=data(parts))
    with pytest.raises(InputError, match=next(iter(options))):
        Engine().test(model=small("patchcore", **options), datamodule=data(parts), ckpt_path=model.run_folder)


def test_thresholds_checkpoint_and_test_are_of_one_epoch(parts: Path):
    from defectlab import Detector

    model = small("cflow", lr=1e-3)
    engine = Engine(max_epochs=3, check_val_every_n_epoch=2, **QUIET)
    engine.train(model=model, datamodule=data(parts))
    run = Run.open(model.run_folder)
    detector = Detector.load(run.folder)
    for split in ("validation", "test"):
        rows = run.scores(split)
        again = [found.score for found in detector.predict([row.image_path for row in rows])]
        assert again == pytest.approx([row.score for row in rows], rel=1e-5)


def test_a_diverged_training_is_on_record(parts: Path, monkeypatch: pytest.MonkeyPatch):
    model = small("cflow")
    likelihood = torch_model.flow_log_likelihood
    monkeypatch.setattr(torch_model, "flow_log_likelihood", lambda *given: likelihood(*given) * float("nan"))
    (metrics,) = Engine(max_epochs=1, **QUIET).train(model=model, datamodule=data(parts))
    (run,) = find_runs()
    assert run.status == "finished"
    assert run.record.history["train_loss"] == [None]
    assert metrics["image_AUROC"] is None
    assert "NaN" in run.record.metric_reasons["image_AUROC"]


def test_other_weights_never_write_into_a_run(parts: Path, tested):
    _, model, metrics, run = tested
    other = small("padim", seed=7)
    Engine(**QUIET).train(model=other, datamodule=data(parts))
    engine = Engine(**QUIET)
    engine.predict(model=model, datamodule=data(parts), ckpt_path=other.run_folder)
    (after,) = engine.test(model=model, datamodule=data(parts))
    assert Run.open(run.folder).record.metrics == metrics
    assert after == Run.open(other.run_folder).record.metrics


def test_best_is_known_after_a_plain_predict(parts: Path, tested):
    engine, model, metrics, _ = tested
    engine.predict(model=model, datamodule=data(parts))
    assert engine.test(model=model, datamodule=data(parts), ckpt_path="best") == [metrics]


def test_a_users_own_checkpoint_callback_leaves_the_runs(parts: Path, tmp_path: Path):
    from anomalib.callbacks import ModelCheckpoint

    from defectlab import Detector

    model = small("cflow")
    engine = Engine(max_epochs=2, callbacks=[ModelCheckpoint(dirpath=tmp_path / "own", filename="{epoch}")], **QUIET)
    (metrics,) = engine.train(model=model, datamodule=data(parts))
    assert Detector.load(model.run_folder)
    assert engine.test(model=model, datamodule=data(parts), ckpt_path="last") == [metrics]
    assert engine.best_model_path.startswith(str(tmp_path / "own"))


def test_without_validation_images_a_tested_run_takes_the_weights_thresholds(parts: Path, tested, tmp_path: Path):
    *_, run = tested
    other = make_parts(tmp_path / "other", bad=6)
    Engine(**QUIET).test(datamodule=data(other, val_split_mode="none"), ckpt_path=run.checkpoint)
    (tested_only,) = [found for found in find_runs() if "weights-of" in found.folder.name]
    assert tested_only.record.thresholds.image.value == run.record.thresholds.image.value
    assert tested_only.record.thresholds.image.source == f"run {run.record.run_id}"


def test_without_any_validation_there_are_no_thresholds(parts: Path):
    model = small("padim")
    (metrics,) = Engine(**QUIET).train(model=model, datamodule=data(parts, val_split_mode="none"))
    assert metrics["image_AUROC"] is not None
    assert metrics["image_F1Score"] is None


def test_training_augmentations_repeat(parts: Path):
    from torchvision.transforms.v2 import ColorJitter

    numbers = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        model = small("padim")
        images = data(parts, train_augmentations=ColorJitter(brightness=0.5))
        Engine(**QUIET).train(model=model, datamodule=images)
        numbers.append([row.score for row in Run.open(model.run_folder).scores()])
    assert numbers[0] == numbers[1]


def test_ctrl_c_is_recorded_as_what_it_was(parts: Path, monkeypatch: pytest.MonkeyPatch):
    model = small("padim")
    monkeypatch.setattr(type(model.model), "fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Engine(**QUIET).fit(model=model, datamodule=data(parts))
    (run,) = find_runs()
    assert run.record.error.summary.startswith("KeyboardInterrupt")


def test_a_ratio_that_keeps_no_patch_is_refused_before_training(parts: Path):
    with pytest.raises(OptionError, match="smallest ratio"):
        Engine(**QUIET).fit(model=small("patchcore", coreset_sampling_ratio=1e-4), datamodule=data(parts))
    assert not find_runs()


def test_a_run_without_a_checkpoint_says_why(parts: Path, monkeypatch: pytest.MonkeyPatch):
    from defectlab import Detector

    model = small("padim")
    monkeypatch.setattr(type(model.model), "fit", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryError):
        Engine(**QUIET).fit(model=model, datamodule=data(parts))
    (run,) = find_runs()
    with pytest.raises(InputError, match=r"status failed; its error was MemoryError: no room.*Train it again"):
        Detector.load(run.folder)
