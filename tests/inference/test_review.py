"""Verdicts in a CSV, and a run's images with confirmed good ones added."""

import csv
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import finished
from PIL import Image

from defectlab import make_sample
from defectlab.data.manifest.manifest import build_manifest
from defectlab.inference.review import ReviewedFolder, confirmed, sample_verdicts, verdicts_on, write_verdicts
from defectlab.results.comparison.paired_test import compare_runs
from defectlab.results.run.run import Run
from defectlab_runtime.errors import DataError, InputError
from defectlab_runtime.prediction import Prediction
from defectlab_runtime.scores import ScoreRow

MAP = np.zeros((2, 2), np.float32)


@pytest.fixture
def new(tmp_path: Path) -> list[Path]:
    """Four photographs of a day."""
    folder = tmp_path / "day"
    folder.mkdir()
    random = np.random.default_rng(1)
    files = [folder / f"{number}.png" for number in range(4)]
    for file in files:
        Image.fromarray(random.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(file)
    return files


def predicted(files: list[Path]) -> list[Prediction]:
    return [Prediction(str(file), 1.5 + place, 1, MAP, None) for place, file in enumerate(files)]


def trained(parts: Path, name: str = "old") -> Run:
    run = finished(name, manifest=build_manifest(parts).hash)
    build_manifest(parts).write(run.folder / "manifest.json")
    data = {"root": str(parts), "train_batch_size": 3, "eval_batch_size": 4, "num_workers": 0, "seed": 42}
    run.update(experiment=run.record.experiment.replaced(data=data))
    return run


def test_verdicts_grow_and_the_last_one_counts(new: list[Path], tmp_path: Path):
    found = predicted(new)
    write_verdicts(found, {"0.png": "good", str(new[1]): "anomalous", "day/2.png": "good"}, "verdicts.csv")
    write_verdicts(found, {"1.png": "unsure", "2.png": "anomalous", "3.png": "good"}, "verdicts.csv")
    with (tmp_path / "verdicts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image_path"], row["verdict"]) for row in rows] == [
        ("day/0.png", "good"), ("day/1.png", "unsure"), ("day/2.png", "anomalous"), ("day/3.png", "good")
    ]  # fmt: skip
    assert rows[0]["score"] == "1.5"
    assert confirmed("verdicts.csv") == [new[0], new[3]]
    assert confirmed("verdicts.csv", "anomalous") == [new[2]]


def test_the_verdict_on_each_image_is_the_last_one_and_a_change_is_told(
    new: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    found = predicted(new)
    with caplog.at_level(logging.INFO):
        write_verdicts(found, {"0.png": "good", "1.png": "anomalous"}, "verdicts.csv")
        write_verdicts(found, {"0.png": "good"}, "verdicts.csv")
        assert "replaced" not in caplog.text
        write_verdicts(found, {"1.png": "unsure"}, "verdicts.csv")
    assert "1 earlier verdicts are replaced: day/1.png from anomalous to unsure" in caplog.text
    assert verdicts_on([*found, Prediction(None, 1.0, 1, MAP, None)], "verdicts.csv") == ["good", "unsure", "", "", ""]
    write_verdicts(found, {}, "none.csv")
    assert verdicts_on(found, "none.csv") == ["", "", "", ""]
    assert confirmed("none.csv") == []


def test_only_the_folders_of_a_sample_give_verdicts(tmp_path: Path):
    found = predicted([tmp_path / "set/test" / name for name in ("good/0.png", "scratch/0.png")])
    assert sample_verdicts(found) == {}
    make_sample("digits", tmp_path / "set", limit_data=2)
    assert [*sample_verdicts(found).values()] == ["good", "anomalous"]
    assert sample_verdicts(predicted([Path("0.png"), tmp_path / "set/0.png"])) == {}


def test_wrong_verdicts_are_refused_and_nothing_is_written(new: list[Path], tmp_path: Path):
    found = predicted(new)
    for verdicts, message in (
        ({"0.png": "god"}, "Did you mean 'good'"),
        ({"0.pgn": "good"}, "not among the images predicted. Did you mean '0.png'"),
    ):
        with pytest.raises(InputError, match=message):
            write_verdicts(found, {"1.png": "good", **verdicts}, "verdicts.csv")
    with pytest.raises(InputError, match="name of 2 images"):
        write_verdicts([*found, Prediction("elsewhere/0.png", 1.0, 1, MAP, None)], {"0.png": "good"}, "verdicts.csv")
    assert not (tmp_path / "verdicts.csv").exists()
    (tmp_path / "verdicts.csv").write_text("image_path,verdict\nday/0.png,fine\n")
    with pytest.raises(InputError, match="verdict 'fine'"):
        confirmed("verdicts.csv")
    with pytest.raises(InputError, match="write_verdicts makes it"):
        confirmed("nowhere.csv")


def test_the_new_manifest_has_more_to_train_on_and_the_same_tests(parts: Path, new: list[Path]):
    run = trained(parts)
    datamodule = ReviewedFolder(run.folder, [new[0], new[3], new[0]])
    before, after = build_manifest(parts), datamodule.manifest
    assert after.split("test") == before.split("test")
    assert after.split("validation") == before.split("validation")
    added = set(after.split("train")) - set(before.split("train"))
    assert {after.absolute(entry) for entry in added} == {new[0], new[3]}
    assert {(entry.label, entry.defect, entry.mask) for entry in added} == {(0, "good", None)}
    assert after.hash != before.hash
    assert after.protocol.counts["train"] == {**before.protocol.counts["train"], "good": 10}
    assert datamodule.train_batch_size == 3
    datamodule.setup()
    assert len(datamodule.train_data) == 10
    again = next(item for item in datamodule.train_data if item.image_path == str(new[0]))
    assert again.image.shape == (3, 64, 64)


def test_images_of_the_test_set_and_changed_ones_are_refused(parts: Path, new: list[Path], tmp_path: Path):
    own = shutil.copytree(parts, tmp_path / "own")
    run = trained(own)
    tested = build_manifest(own)
    copy = shutil.copy(tested.absolute(tested.split("test")[0]), tmp_path / "copy.png")
    with pytest.raises(DataError, match=r"copy\.png is test/.*, which is in test"):
        ReviewedFolder(run.folder, [copy]).manifest  # noqa: B018
    with pytest.raises(InputError, match="No images to add"):
        ReviewedFolder(run.folder, [])
    shutil.copy(new[0], tested.absolute(tested.split("train")[0]))
    with pytest.raises(DataError, match="has changed since the run"):
        ReviewedFolder(run.folder, [new[1]]).manifest  # noqa: B018


def test_runs_trained_on_other_images_compare_on_the_same_tests(parts: Path, new: list[Path], tmp_path: Path):
    old, after = trained(parts), trained(parts, "new")
    manifest = ReviewedFolder(old.folder, [new[0]]).manifest
    after.update(dataset=after.record.dataset.replaced(manifest=manifest.hash))
    manifest.write(after.folder / "manifest.json")
    rows = [
        ScoreRow(str(manifest.absolute(entry)), "test", entry.defect, entry.label, float(place % 3), 1)
        for place, entry in enumerate(manifest.split("test"))
    ]
    for run in (old, after):
        run.write_scores(rows)
    assert len(compare_runs([old, after])) == 2
    other = shutil.copytree(parts, tmp_path / "other")
    shutil.copy(new[1], other / "test/good/000.png")
    shutil.copy(new[2], other / "test/good/001.png")
    build_manifest(other).write(after.folder / "manifest.json")
    with pytest.raises(InputError, match="different images or splits"):
        compare_runs([old, after])
