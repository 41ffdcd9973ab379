"""A run's thresholds set and taken back wherever they are stored."""

import logging
import shutil
import struct
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import data, small
from helpers.models import trained as train

from defectlab import Detector, Engine, Padim
from defectlab.cli import main
from defectlab.evaluation.metrics import stored_threshold
from defectlab.evaluation.threshold import RuleOptions
from defectlab.inference.threshold import apply_threshold, renew, undo_threshold
from defectlab.models.checkpoint_thresholds import weights_identity
from defectlab.models.convert import to_anomalib
from defectlab.results.rethreshold import set_threshold
from defectlab.results.run.run import CONVERTED, Run
from defectlab.results.workbook import read_workbook
from defectlab.utils import paths
from defectlab.utils.disk import DiskError
from defectlab.utils.tensor_archive import DIGEST, DamagedArchiveError
from defectlab.visualization.report import write_report


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("project")
    return train(small("padim"), make_parts(folder / "parts"), folder / "results")


@pytest.fixture
def run(trained: Run, own_project: Path) -> Run:
    """A copy of a trained run in a project of its own."""
    return Run.open(shutil.copytree(trained.folder, paths.results_dir() / "Padim" / "parts" / trained.folder.name))


def alone(run: Run, tmp_path: Path, name: str = "alone") -> Path:
    (tmp_path / name).mkdir()
    return Path(shutil.copy(run.checkpoint, tmp_path / name / "model.ckpt"))


def tensors(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, map_location="cpu", weights_only=True)["state_dict"]


VALUE = RuleOptions(value=17.123456789)


@pytest.mark.row("3.15")
def test_a_copy_of_the_lone_checkpoint_decides_as_the_run(run: Run, tmp_path: Path):
    earlier = alone(run, tmp_path, "earlier")
    apply_threshold(run, "manual", VALUE)
    copy = alone(run, tmp_path)
    old, new, whole = (Detector.load(path) for path in (earlier, copy, run.folder))
    assert whole.image_threshold == VALUE.value
    assert new.image_threshold == pytest.approx(VALUE.value, rel=1e-6) != old.image_threshold
    images = [row.image_path for row in run.scores("test")]
    assert [one.label for one in new.predict(images)] == [row.pred_label for row in run.scores("test")]
    assert [one.label for one in old.predict(images)] != [row.pred_label for row in run.scores("test")]
    loaded = Padim.load_from_checkpoint(copy)
    assert loaded.post_processor.thresholds == (new.image_threshold, new.pixel_threshold)


def test_only_the_thresholds_of_the_checkpoint_change_and_undo_brings_them_back(run: Run, tmp_path: Path):
    before = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
    file, record = alone(run, tmp_path), run.record
    apply_threshold(run, "manual", VALUE)
    after = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
    assert before.keys() == after.keys()
    changed = {name for name, one in before["state_dict"].items() if not torch.equal(one, after["state_dict"][name])}
    assert changed == {"post_processor._image_threshold"}
    undo_threshold(run)
    back = tensors(run.checkpoint)
    assert all(torch.equal(one, back[name]) for name, one in before["state_dict"].items())
    assert Detector.load(alone(run, tmp_path, "back")).image_threshold == Detector.load(file).image_threshold
    assert run.record.replaced(earlier_thresholds=[]).to_dict() == record.replaced(earlier_thresholds=[]).to_dict()


def test_the_weights_keep_their_identity(run: Run, tmp_path: Path):
    before = alone(run, tmp_path)
    apply_threshold(run, "manual", VALUE)
    apply_threshold(run, "manual", RuleOptions(value=3.0))
    after = alone(run, tmp_path, "after")
    assert before.read_bytes() != after.read_bytes()
    assert weights_identity(before) == weights_identity(after)
    assert all(any(name.endswith(DIGEST) for name in ZipFile(file).namelist()) for file in (before, after))
    after.write_bytes(after.read_bytes().replace(struct.pack("<f", 3.0), struct.pack("<f", 3.5)))  # the threshold
    with pytest.raises(DamagedArchiveError):
        Detector.load(after)


def test_a_test_of_the_copy_is_the_same_run_as_before(run: Run, tmp_path: Path, trained: Run):
    root = Path(trained.record.experiment.data["root"])
    results = []
    for name in ("before", "after"):
        model = Padim.load_from_checkpoint(alone(run, tmp_path, name))
        Engine(enable_progress_bar=False).test(
            model=model, datamodule=data(root), ckpt_path=tmp_path / name / "model.ckpt"
        )
        results += [found.record.run_id for found in (Run.open(f) for f in (run.folder.parent).glob("*weights-of*"))]
        apply_threshold(run, "manual", VALUE)
    assert len(results) == 2
    assert results[0] == results[1]


def test_the_converted_checkpoint_goes_along(run: Run):
    to_anomalib(run.folder)
    apply_threshold(run, "manual", VALUE)
    assert float(tensors(run.folder / CONVERTED)["post_processor._image_threshold"]) == stored_threshold(VALUE.value)


def test_record_and_checkpoint_change_together_or_not_at_all(run: Run, monkeypatch: pytest.MonkeyPatch):
    files = [run.folder / "run.json", run.folder / "scores.csv", run.checkpoint]
    before = [file.read_bytes() for file in files]
    listing = sorted(run.checkpoint.parent.iterdir())

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file")

    for owner, name in ((torch, "save"), (Run, "update")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, full)
            with pytest.raises((RuntimeError, DiskError), match=r"failed writing|cannot be written"):
                apply_threshold(run, "manual", VALUE)
        assert [file.read_bytes() for file in files] == before
    assert sorted(run.checkpoint.parent.iterdir()) == listing


def test_a_checkpoint_that_fell_behind_is_named_and_renewed(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        Detector.load(run.folder)
        assert "would decide by" not in caplog.text
        set_threshold(run, "manual", VALUE, ["image"])  # the record alone, as before there was more
        Detector.load(run.folder)
    assert "A copy of model.ckpt alone would decide by" in caplog.text
    assert "--renew" in caplog.text
    caplog.clear()
    assert main(["threshold", "--run", str(run.folder), "--renew"]) == 0
    Detector.load(run.folder)
    assert "would decide by" not in caplog.text
    assert Detector.load(alone(run, tmp_path)).image_threshold == pytest.approx(VALUE.value)
    assert len(Run.open(run.folder).record.earlier_thresholds) == 1, "renewing chooses nothing"


def test_a_run_that_only_tested_leaves_the_trained_ones_checkpoint(run: Run, trained: Run):
    root = Path(trained.record.experiment.data["root"])
    model = Padim.load_from_checkpoint(run.checkpoint)
    engine = Engine(enable_progress_bar=False, pixel_size=(32, 32))
    engine.test(model=model, datamodule=data(root), ckpt_path=run.checkpoint)
    (other,) = (Run.open(folder) for folder in run.folder.parent.glob("*weights-of*"))
    before = run.checkpoint.read_bytes()
    apply_threshold(other, "manual", VALUE)
    assert run.checkpoint.read_bytes() == before
    assert Detector.load(other.folder).image_threshold == VALUE.value


def test_pictures_reports_and_the_row_follow(run: Run):
    report, overall = run.folder / "report.html", paths.results_dir() / "report.html"
    for file in (report, overall):
        write_report([run], file)
    pictures = (run.folder / "pictures.png").read_bytes()
    apply_threshold(run, "manual", VALUE, ["image"])
    assert "threshold 17.12" in report.read_text()
    assert "threshold 17.12" not in overall.read_text()
    assert "were changed after this report was made" in overall.read_text()
    assert (run.folder / "pictures.png").read_bytes() != pictures
    (row,) = read_workbook()
    assert row["image_threshold"] == pytest.approx(VALUE.value)
    undo_threshold(run)
    assert "threshold 17.12" not in report.read_text()
    assert (run.folder / "pictures.png").read_bytes() == pictures
    assert renew(run).thresholds == run.record.thresholds


def test_the_command_sets_and_takes_back(run: Run, capsys: pytest.CaptureFixture[str]):
    before = run.record.thresholds.image.value
    arguments = ["threshold", "--run", str(run.folder)]
    assert main([*arguments, "--rule", "manual", "--level", "image", "--value", "2.5"]) == 0
    assert "--undo takes this choice back" in capsys.readouterr().out
    assert main([*arguments, "--undo"]) == 0
    assert f"image: {before!r}" in capsys.readouterr().out
    assert main([*arguments, "--undo"]) != 0
    assert "nothing to take back" in capsys.readouterr().err
    assert Run.open(run.folder).record.thresholds.image.value == before


@pytest.fixture
def two(both: Run, own_project: Path) -> Run:
    """A copy of a run that serves the categories bolt and nut, in a project of its own."""
    return Run.open(shutil.copytree(both.folder, paths.results_dir() / "Patchcore/bolt+nut" / both.folder.name))


def test_each_category_gets_a_threshold_of_its_own_and_takes_it_back(two: Run, tmp_path: Path):
    before = two.record.thresholds
    rows = {name: [row for row in two.scores("validation") if row.category == name] for name in ("bolt", "nut")}
    apply_threshold(two, "good_max", RuleOptions())
    now = Run.open(two.folder)
    for name, its in rows.items():
        limit = now.record.thresholds.categories[name].image.value
        assert max(row.score for row in its if row.label == 0) <= limit
        own = [row for row in now.scores() if row.category == name]
        assert [row.pred_label for row in own] == [int(row.score > limit) for row in own]
    copied = Detector.load(alone(now, tmp_path))
    expected = {name: one.image.value for name, one in now.record.thresholds.categories.items()}
    assert {name: image for name, (image, _) in copied.categories.items()} == pytest.approx(expected)
    undo_threshold(now)
    assert Run.open(two.folder).record.thresholds == before
    assert Run.open(two.folder).record.metrics == two.record.metrics


def test_a_threshold_of_one_category_leaves_the_other_as_it_was(two: Run, capsys: pytest.CaptureFixture[str]):
    before = two.record.thresholds.categories
    folder = str(two.folder)
    assert main(["threshold", "--run", folder, "--rule", "manual", "--level", "image", "--value", "0"]) == 2
    assert "Each category has a scale of its own" in capsys.readouterr().err
    command = ["threshold", "--run", folder, "--rule", "manual", "--level", "image", "--value", "0"]
    assert main([*command, "--category", "nut"]) == 0
    now = Run.open(two.folder)
    assert now.record.thresholds.categories["bolt"] == before["bolt"]
    assert now.record.thresholds.categories["nut"].image.value == 0
    nut = [row for row in now.scores() if row.category == "nut"]
    assert {row.pred_label for row in nut} == {1}
    bolt, others = now.record.categories
    assert others.metrics["image_TNR"] == 0
    assert now.record.metrics["image_TNR"] == pytest.approx((bolt.metrics["image_TNR"] + 0) / 2)
    rows = {row["run_id"]: row for row in read_workbook(paths.workbook())}
    assert rows[now.record.run_id]["one model for"] == "2 categories: bolt, nut (metrics: the mean over them)"
