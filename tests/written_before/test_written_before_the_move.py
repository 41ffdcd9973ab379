"""A project written by the code of before the move: opened, evaluated, compared, predicted with and gone on with.

`project.zip` is such a project: images and weights of its own making, 25 runs (finished, fitted, failed), two sweeps
interrupted half way with their cache, a workbook that a person has added to, and `expected.json`: what that code said
of it all. Records name their place as /project.
"""

import csv
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest

from defectlab import Detector, Run
from defectlab.cli import main
from defectlab.results.run.identity import experiment_id
from defectlab.results.run.record import RunRecord

ZIP = Path(__file__).with_name("project.zip")
with zipfile.ZipFile(ZIP) as archive:
    EXPECTED: dict[str, Any] = json.loads(archive.read("expected.json"))
RUNS: dict[str, dict[str, Any]] = EXPECTED["runs"]
FINISHED = [name for name, record in RUNS.items() if record["status"] == "finished"]
# the first run of each model on each dataset
ONE_OF_A_KIND = list({tuple(name.split("/")[1:3]): name for name in reversed(FINISHED)}.values())
TEXTS = (".json", ".txt", ".csv", ".yaml")


def unpacked(folder: Path) -> Path:
    """The project as it was left, in a folder of its own."""
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(folder)
    for file in folder.rglob("*"):
        if file.suffix in TEXTS and file.is_file() and ".cache" not in file.parts:
            text = file.read_text(encoding="utf-8")
            if "/project" in text:
                file.write_text(text.replace("/project", str(folder)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project; read only."""
    return unpacked(tmp_path_factory.mktemp("left"))


@pytest.fixture
def read_only(left: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project, as this test's own."""
    monkeypatch.setenv("DEFECTLAB_HOME", str(left))
    monkeypatch.chdir(left)
    return left


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project to work in."""
    root = unpacked(tmp_path / "project")
    monkeypatch.setenv("DEFECTLAB_HOME", str(root))
    monkeypatch.chdir(root)
    return root


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("name", RUNS)
def test_a_record_is_read_and_written_as_it_was(name: str, read_only: Path) -> None:
    run, expected = Run.open(name), RUNS[name]
    written = json.loads((read_only / name / "run.json").read_text(encoding="utf-8"))
    assert run.status == expected["status"]
    assert "version" not in written
    assert RunRecord.from_dict(written).to_dict() == {"version": 1} | written
    assert run.record.metrics == expected["metrics"]
    assert experiment_id(run.record.facts) == run.record.run_id == expected["run_id"]
    assert (run.record.error and run.record.error.summary) == expected["error"]


@pytest.mark.parametrize("name", EXPECTED["predictions"])
def test_a_checkpoint_says_what_it_said(name: str, read_only: Path) -> None:
    expected = EXPECTED["predictions"][name]
    folder = Path(expected[0]["image"]).parents[1]
    found = Detector.load(name, device="cpu").predict(folder)
    assert [Path(one.image_path).relative_to(read_only).as_posix() for one in found] == [
        one["image"] for one in expected
    ]
    assert [one.label for one in found] == [one["label"] for one in expected]
    assert [one.score for one in found] == pytest.approx([one["score"] for one in expected], rel=1e-5)
    maps = [float(np.nanmax(one.anomaly_map)) for one in found]
    assert maps == pytest.approx([one["map_max"] for one in expected], rel=1e-4)


@pytest.mark.parametrize(
    "name", [name if name in ONE_OF_A_KIND else pytest.param(name, marks=pytest.mark.long) for name in FINISHED]
)
def test_a_finished_run_is_evaluated_to_the_numbers_it_had(name: str, left: Path, own_project: Path) -> None:
    shutil.copytree(left / name, own_project / name)
    before = Run.open(name)
    assert main(["evaluate", name]) == EXPECTED["said"][f"evaluate {name}"]["exit"]
    after = Run.open(name)
    assert after.record.metrics == RUNS[name]["metrics"]
    assert after.record.thresholds == before.record.thresholds
    assert (own_project / name / "scores.csv").read_text(encoding="utf-8").splitlines() == RUNS[name]["scores"]


def test_the_workbook_keeps_its_rows_and_what_a_person_added(project: Path) -> None:
    file = project / "models_comparing.xlsx"
    before = openpyxl.load_workbook(file)
    assert main(["compare"]) == 0
    after = openpyxl.load_workbook(file)
    assert after.sheetnames == before.sheetnames
    own = ("project", "date (UTC)")  # the first names where the project lies
    for title in before.sheetnames:
        if title == "about":  # says when it was written
            continue
        if title == "leaderboard":  # has had other columns since
            assert _configurations(after[title]) == _configurations(before[title])
            continue
        header = [cell.value for cell in before[title][1]]
        for row in before[title].iter_rows():
            for cell in row:
                if title == "runs" and cell.row > 1 and header[cell.column - 1] in own:
                    continue
                assert after[title][cell.coordinate].value == cell.value, (title, cell.coordinate)
                comment = after[title][cell.coordinate].comment
                assert (comment and comment.text) == (cell.comment and cell.comment.text)
    assert after["our notes"]["A1"].value == "lamp replaced"


def _configurations(leaderboard: Any) -> list[list[Any]]:
    """The model, run, seed and AUROC of each row of a leaderboard, in its order, by the names of the columns."""
    places: list[int] = []
    names = ("model", "run", "seed", "image_AUROC")
    places: list[int] = []
    rows = []
    for row in leaderboard.iter_rows(values_only=True):
        if all(name in row for name in names):
            places = [row.index(name) for name in names]
        elif places and row[places[0]] in ("PaDiM", "PatchCore"):
            rows.append([row[place] for place in places])
    assert len(rows) > 10
    return rows


@pytest.mark.parametrize("name", ["grid", "found"])
def test_an_interrupted_sweep_goes_on_from_its_cache(
    name: str, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = project / ".cache/features"
    features = {file.stem for file in cache.glob("*.json") if json.loads(file.read_text())["key"]["what"] == "features"}
    made = {key: (cache / f"{key}.npy").stat().st_mtime_ns for key in features}
    assert main(["sweep", "--config", f"configs/{name}.yaml"]) == EXPECTED["said"][f"sweep {name}"]["exit"]
    expected = EXPECTED["after"][f"sweep {name}"]
    now = {file.stem for file in cache.glob("*.json") if json.loads(file.read_text())["key"]["what"] == "features"}
    assert now == features  # nothing was computed again
    assert {key: (cache / f"{key}.npy").stat().st_mtime_ns for key in features} == made
    table = rows_of(project / f"results/sweeps/{name}/table.csv")
    assert len(table) == len(expected["table"])
    for row, old in zip(table, expected["table"], strict=True):
        computed_now = name == "grid" and int(row["number"]) > 3  # masks reduced by area, folders named with one hash
        left_out = [key for key in row if computed_now and (key.startswith("pixel_") or key == "record")]
        assert _settled(row, left_out) == _settled(old, left_out)
        assert row["record"].split("_data")[0] == old["record"].split("_data")[0]
    assert ("do not compare with those of the 3 to come" in caplog.text) == (name == "grid")
    if expected["trials"]:
        trials = rows_of(project / f"results/sweeps/{name}/trials.csv")
        assert [_settled(row) for row in trials] == [_settled(row) for row in expected["trials"]]


def _settled(row: dict[str, str], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """A row without times and without columns to leave out; numbers to seven digits."""
    kept = {key: value for key, value in row.items() if "seconds" not in key and key not in left_out}
    values = {key: value.replace("/project/", "") for key, value in kept.items()}
    return {
        key: f"{float(value):.6e}" if _is_number(value) else value for key, value in values.items() if key != "error"
    }


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
