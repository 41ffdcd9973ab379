"""Many images at once: one bad file does not end the work on the others."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import small, trained
from PIL import Image

from defectlab import Detector
from defectlab.cli import main
from defectlab.inference.prediction_files import predict_to_folder
from defectlab.inference.prediction_report import report_predictions
from defectlab.results.run.run import Run
from defectlab.results.run.scores import read_problems, read_scores
from defectlab_runtime.errors import DataError


@pytest.fixture(scope="module")
def run(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(small("padim"), parts, tmp_path_factory.mktemp("results"))


@pytest.fixture
def images(parts: Path, tmp_path: Path) -> Path:
    root = shutil.copytree(parts / "test", tmp_path / "new")
    (root / "good/001.png").write_bytes((root / "good/001.png").read_bytes()[:200])
    (root / "good/empty.png").write_bytes(b"")
    return root


@pytest.mark.parametrize("options", [[], ["--report"]])
def test_the_others_are_scored_and_the_bad_ones_have_their_reason(run, images, tmp_path, caplog, options):
    out = tmp_path / "out"
    assert main(["predict", str(run.folder), str(images), "--output", str(out), *options]) == 1
    rows = {Path(row.image_path).relative_to("new").as_posix(): row for row in read_scores(out / "scores.csv")}
    assert len(rows) == 9
    bad = ["good/001.png", "good/empty.png"]
    problems = {path.removeprefix("new/"): reason for path, reason in read_problems(out / "scores.csv").items()}
    assert sorted(problems) == bad
    assert problems["good/empty.png"] == "empty file (0 bytes)"
    assert all(np.isnan(rows[name].score) and rows[name].pred_label == -1 for name in bad)
    expected = {Path(one.image_path).relative_to(images).as_posix(): one.score for one in predicted(run, images)}
    assert {name: row.score for name, row in rows.items() if name not in bad} == pytest.approx(expected)
    assert "2 images have no score" in caplog.text
    if options:
        report = json.loads((out / "anomaly_test_output.json").read_text())
        assert list(report["unreadable"]) == [f"new/{name}" for name in bad]
        assert len(report["observations"]) == 7


@pytest.mark.parametrize("options", [[], ["--report"]])
def test_a_damaged_checkpoint_ends_it_unless_told_not_to_look(run, parts, tmp_path, capsys, options):
    content = bytearray(run.checkpoint.read_bytes())
    content[content.index(torch.load(run.checkpoint)["state_dict"]["model.gaussian.mean"].numpy().tobytes())] ^= 1
    (tmp_path / "model.ckpt").write_bytes(content)
    command = ["predict", str(tmp_path / "model.ckpt"), str(parts / "test/good/000.png"), *options]
    assert main([*command, "--output", str(tmp_path / "out")]) == 2
    assert "its content is not that of its digest" in capsys.readouterr().err
    assert main([*command, "--output", str(tmp_path / "out"), "--no-verify"]) == 0


def predicted(run: Run, images: Path) -> list:
    return list(Detector.load(run.folder).iterate(images, on_unreadable=lambda path, _: None))


def test_strict_and_nothing_readable_are_errors_before_scoring(run, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(run.folder), str(images), "--output", str(out), "--strict"]) == 2
    assert "new/good/empty.png: empty file" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"None of these images can be scored.*\n.*empty\.png"):
        predict_to_folder(run.folder, images / "good/empty.png", out)
    with pytest.raises(DataError, match=r"None of these images"):
        report_predictions(run.folder, images / "good/empty.png", out)
    with pytest.raises(DataError, match=r"001\.png: image file is truncated"):
        Detector.load(run.folder).predict(images)
    assert not out.exists()


def test_a_file_that_goes_bad_after_the_check_has_its_reason_too(run, parts, tmp_path, monkeypatch):
    images = shutil.copytree(parts / "test/good", tmp_path / "new")

    def load(*args, **kwargs):
        (images / "002.png").unlink()
        return detector

    detector = Detector.load(run.folder)
    monkeypatch.setattr(Detector, "load", load)
    predict_to_folder(run.folder, images, tmp_path / "out")
    assert "no file or folder" in read_problems(tmp_path / "out/scores.csv")["new/002.png"]
    assert len(read_scores(tmp_path / "out/scores.csv")) == 4


def test_sound_images_have_an_empty_column_and_exit_code_0(run, parts, tmp_path):
    out = tmp_path / "out"
    assert main(["predict", str(run.folder), str(parts / "test/good"), "--output", str(out)]) == 0
    with (out / "scores.csv").open(newline="") as file:
        assert [row["problem"] for row in csv.DictReader(file)] == [""] * 4


def test_pages_after_the_first_are_told(run, parts, tmp_path, caplog):
    with Image.open(parts / "test/good/000.png") as first, Image.open(parts / "test/good/001.png") as second:
        first.save(tmp_path / "stack.tif", save_all=True, append_images=[second, second])
    predict_to_folder(run.folder, tmp_path / "stack.tif", tmp_path / "out")
    assert "Only the first of several pages is scored: stack.tif (3)" in caplog.text


def test_files_of_several_categories_name_each_ones(both: Run, categories: Path, tmp_path: Path):
    images = [str(categories / name / "test") for name in ("bolt", "nut")]
    out = tmp_path / "out"
    assert main(["predict", str(both.folder), *images, "--output", str(out), "--heatmaps", "--view", "percent"]) == 0
    rows = read_scores(out / "scores.csv")
    assert {row.category for row in rows} == {"bolt", "nut"}
    assert all((row.score > 100) == (row.pred_label == 1) for row in rows)
    assert len(list((out / "heatmaps").rglob("*.png"))) == len(rows)
    elsewhere = shutil.copytree(categories / "nut/test", tmp_path / "new")
    assert main(["predict", str(both.folder), str(elsewhere), "--output", str(tmp_path / "no")]) == 2
    assert not (tmp_path / "no").exists()
    assert main(["predict", str(both.folder), str(elsewhere), "--output", str(out), "--category", "nut"]) == 0
    assert {row.category for row in read_scores(out / "scores.csv")} == {"nut"}
    assert main(["predict", str(both.folder), *images, "--output", str(out), "--report"]) == 2
    report = tmp_path / "report"
    assert (
        main(["predict", str(both.folder), images[0], "--output", str(report), "--report", "--category", "bolt"]) == 0
    )
    found = json.loads((report / "anomaly_test_output.json").read_text())
    assert found["unnormalized_threshold"] == both.record.thresholds.categories["bolt"].image.value
