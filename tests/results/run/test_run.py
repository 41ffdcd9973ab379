"""A run in its folder: begun, failed, killed, run again, damaged, and read by scripts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs import finished, parts_of_a_record

from defectlab.results.run.identity import experiment_id, former_name, readable_name
from defectlab.results.run.ownership import release
from defectlab.results.run.processes import may_live
from defectlab.results.run.run import Run, find_runs
from defectlab_runtime.errors import InputError, OptionError
from defectlab_runtime.scores import ScoreRow

FACTS = {"seed": 42, "model.image_size": [256, 256], "data.manifest": "aaaa", "backbone.sha256": "bbbb"}


def start(root: Path, facts: dict | None = None, name: str = "resnet18_layer2_0.1_5") -> Run:
    return Run.start(root, name, facts or FACTS, parts_of_a_record())


def test_a_run_begins_with_a_record_and_ends_with_all_of_it(tmp_path: Path):
    run = start(tmp_path)
    assert Run.open(run.folder).status == "running"
    run.advance("fitted")
    run.advance("finished", metrics={"image_AUROC": 0.5})
    record = json.loads((tmp_path / "Patchcore/bottle/resnet18_layer2_0.1_5/run.json").read_text())
    assert record["status"] == "finished"
    assert record["run_id"] == experiment_id(FACTS)
    assert record["metrics"] == {"image_AUROC": 0.5}


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1, -1])
def test_every_seed_that_torch_takes_is_read_again(tmp_path: Path, seed: int):
    run = start(tmp_path, facts={"seed": seed})
    assert Run.open(run.folder).record.facts["seed"] == seed


@pytest.mark.parametrize(
    ("value", "problem"),
    [(2**64, "a number beyond 64 bits"), (float("nan"), "nan, no finite number"), ([[float("inf")]], "inf, no finite")],
)
def test_a_setting_that_no_record_can_hold_is_refused_before_the_training(tmp_path: Path, value: Any, problem: str):
    with pytest.raises(InputError, match=rf"cannot be put on record: facts\.model\.margin\S* is {problem}"):
        start(tmp_path, facts={"seed": 1, "model.margin": value})
    assert not list(tmp_path.rglob("run.json"))


def test_a_number_that_python_cannot_write_is_named_as_a_setting(tmp_path: Path):
    for value in (10**5000, [1, -(10**5000)]):
        with pytest.raises(OptionError, match=r"^model\.margin holds a whole number of thousands of digits"):
            Run.start(tmp_path, "r", {"seed": 1, "model.margin": value}, parts_of_a_record())
        with pytest.raises(OptionError, match=r"^num_neighbors holds a whole number of thousands of digits"):
            readable_name("patchcore", "resnet18", {"num_neighbors": value}, 1)
    assert not list(tmp_path.iterdir())


def test_the_same_experiment_replaces_its_run_only_once_the_new_one_is_as_far(tmp_path: Path):
    first = start(tmp_path)
    first.advance("finished", marker="first")
    second = start(tmp_path)
    second.update(marker="second")
    assert second.folder != first.folder
    assert Run.open(first.folder).record.extra["marker"] == "first"
    second.advance("fitted")
    assert Run.open(first.folder).record.extra["marker"] == "first"
    second.advance("finished")
    assert second.folder == first.folder
    assert Run.open(first.folder).record.extra["marker"] == "second"
    assert [run.folder for run in find_runs(tmp_path)] == [first.folder]
    assert sorted(path.name for path in first.folder.parent.iterdir()) == [".lock", first.folder.name]


def test_a_failed_rerun_leaves_the_finished_run(tmp_path: Path):
    start(tmp_path).advance("finished", marker="first")
    again = start(tmp_path)
    with pytest.raises(RuntimeError, match="boom"), again.recording_failure():
        raise RuntimeError("boom")
    assert again.record.status == "failed"
    (found,) = find_runs(tmp_path)
    assert found.record.extra["marker"] == "first"


def test_another_experiment_of_the_same_name_gets_a_suffix_that_says_what_differs(tmp_path: Path):
    start(tmp_path).advance("finished")
    other = start(tmp_path, FACTS | {"model.image_size": [512, 512]})
    assert other.folder.name == "resnet18_layer2_0.1_5_image_size-512x512"
    third = start(tmp_path, FACTS | {"data.manifest": "cccc", "seed": 7})
    assert third.folder.name == f"resnet18_layer2_0.1_5_data_seed-7_{third.record.run_id[:6]}"


@pytest.mark.parametrize("name", ["my run", "it's {'a': 1}, b", " lamp: 2 (new)"])
def test_a_run_under_a_name_of_before_is_found_again(tmp_path: Path, name: str):
    first = start(tmp_path, name=name)
    first.advance("finished")
    old = first.folder.with_name(former_name(name))
    assert old != first.folder
    first.folder.rename(old)
    Run(old, first.record).update(name=old.name)
    again = start(tmp_path, name=name)
    again.advance("finished")
    assert again.folder == old
    assert [run.record.run_id for run in find_runs(tmp_path)] == [first.record.run_id]


def test_a_dataset_folder_of_before_holds_the_new_runs_too(tmp_path: Path):
    old = tmp_path / "Patchcore" / former_name("aux \x1b")
    old.mkdir(parents=True)
    parts = parts_of_a_record(dataset="aux \x1b")
    assert Run.start(tmp_path, "a", FACTS, parts).folder == old / "a"


def test_names_that_differ_by_case_get_folders_that_differ_by_more(tmp_path: Path):
    folders = {start(tmp_path, FACTS | {"seed": seed}, name).folder.name for seed, name in ((1, "Case"), (2, "case"))}
    assert folders == {"Case", "case_seed-2"}


@pytest.mark.parametrize(
    ("name", "facts", "folder"),
    [
        ("my run", {}, "my-run"),
        ("{'a': [1, 2]} 'b'", {}, "a-1-2-b"),
        ("..", {}, "run"),
        ("\u00fc" * 300, {}, "\u00fc" * 50),
        ("a", {"data.augmentations": {"flip": {"p": 0.5}}}, "a_augmentations_HASH"),
        ("a", {"data.manifest": "cccc", "backbone.sha256": "dddd"}, "a_weights_data_HASH"),
        ("a", {"model.note": "two words"}, "a_note_HASH"),
        ("a", {"seed": 7}, "a_seed-7"),
    ],
)
def test_run_folders_have_a_short_readable_part_and_one_hash(tmp_path: Path, name: str, facts: dict, folder: str):
    start(tmp_path, name="a")
    run = start(tmp_path, FACTS | facts, name)
    assert run.folder.name == folder.replace("HASH", run.record.run_id[:6])


def test_a_failure_is_kept_with_its_error(tmp_path: Path):
    run = start(tmp_path)
    with pytest.raises(ValueError, match="no good"), run.recording_failure():
        raise ValueError("no good")
    assert Run.open(run.folder).record.error.summary == "ValueError: no good"
    again = start(tmp_path)
    assert again.folder == run.folder


def test_a_killed_run_is_known_as_interrupted(tmp_path: Path):
    code = f"""
import os, signal
from pathlib import Path
from typing import Any
from defectlab.results.run.run import Run
run = Run.start(Path({str(tmp_path)!r}), "r", {{"seed": 1}}, {parts_of_a_record()!r})
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert Run.open(tmp_path / "Patchcore/bottle/r").status == "interrupted"


@pytest.mark.row("R.11")
def test_a_number_that_another_process_has_by_now_is_not_the_dead_one(tmp_path: Path):
    run = start(tmp_path)
    release(run.folder)
    own = run.record.process
    assert own.pid == os.getpid()
    assert may_live(own)
    parent = own.replaced(pid=os.getppid())
    run.update(process=parent.replaced(born="before the last start 17"))
    assert (run.status == "interrupted") == Path("/proc/self/stat").exists(), "born at another moment"
    run.update(process=parent.replaced(born=None))  # a record from before this was written down
    assert run.status == "running"
    with pytest.raises(InputError, match="is running this experiment now"):
        start(tmp_path)
    assert may_live(own.replaced(pid=1, host="another machine", born="x 1"))


@pytest.mark.row("R.12")
def test_a_rerun_killed_while_it_took_its_place_loses_nothing(tmp_path: Path):
    run = start(tmp_path)
    run.advance("finished", marker="first")
    run.folder.rename(run.folder.with_name(f".{run.folder.name}.old-99999"))
    assert find_runs(tmp_path) == []
    again = start(tmp_path)
    (found,) = find_runs(tmp_path)
    assert found.record.extra["marker"] == "first"
    again.advance("finished", marker="second")
    assert [one.record.extra["marker"] for one in find_runs(tmp_path)] == ["second"]
    assert {folder.name for folder in run.folder.parent.iterdir()} == {".lock", run.folder.name}


def test_scores_come_back_to_the_last_digit(tmp_path: Path):
    run = start(tmp_path)
    rows = [
        ScoreRow("data/тест, 1.png", "validation", "good", 0, float(np.float32(0.1)), 0),
        ScoreRow("b.png", "test", "blot", 1, 1 / 3, -1),
        ScoreRow("c.png", "test", "blot", 1, float("inf"), 1),
    ]
    run.write_scores(rows)
    assert run.scores() == rows
    assert run.scores("test") == rows[1:]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"run\.json"):
        Run.open(tmp_path)


DAMAGED = {
    "cut off": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "no text": lambda whole: b"\xff\xfe\x00",
    "no record": lambda whole: b"[]",
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_record_is_named_and_keeps_no_other_run_from_being_found(tmp_path: Path, how: str):
    other = start(tmp_path, name="other")
    run = start(tmp_path, FACTS | {"seed": 1})
    file = run.folder / "run.json"
    file.write_bytes(DAMAGED[how](file.read_bytes()))
    with pytest.raises(InputError, match=r"run\.json is damaged.*Restore it, or train the run again"):
        Run.open(run.folder)
    assert [found.folder for found in find_runs(tmp_path)] == [other.folder]


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_scores_and_maps_are_named(tmp_path: Path, how: str):
    run = start(tmp_path)
    run.write_scores([ScoreRow("a.png", "test", "good", 0, 0.25, 0)])
    run.maps_path("test").parent.mkdir()
    for path in (run.maps_path("test"), run.masks_path("test")):
        np.save(path, np.zeros((1, 8, 8), np.uint8))
    for path in (run.folder / "scores.csv", run.maps_path("test"), run.masks_path("test")):
        path.write_bytes(DAMAGED[how](path.read_bytes()))
    for read in (lambda: run.scores("test"), lambda: run.maps("test"), lambda: run.packed_masks("test")):
        with pytest.raises(InputError, match=r"is damaged .*Restore it, or test the run again"):
            read()


def test_keys_that_are_not_known_stay(tmp_path: Path):
    run = start(tmp_path)
    file = run.folder / "run.json"
    data = json.loads(file.read_text())
    data["note"] = {"by": "a person"}
    data["dataset"]["camera"] = 3
    file.write_text(json.dumps(data))
    Run.open(run.folder).update(checkpoint=None)
    assert json.loads(file.read_text()) == data | {"checkpoint": None}


def test_a_newer_version_is_refused_by_name_and_never_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    other = start(tmp_path, name="other")
    run = start(tmp_path, FACTS | {"seed": 1})
    file = run.folder / "run.json"
    file.write_text(json.dumps({"version": 2, "name": ["another", "shape"]}))
    with pytest.raises(
        InputError, match=r"run\.json cannot be read: it is of version 2, newer than .* Update defectlab"
    ):
        Run.open(run.folder)
    assert [found.folder for found in find_runs(tmp_path)] == [other.folder]
    assert f"Unreadable record: {file} cannot be read: it is of version 2" in caplog.text
    beside = start(tmp_path, FACTS | {"seed": 1})
    assert beside.folder != run.folder
    assert json.loads(file.read_text())["version"] == 2
    (beside.folder / "run.json").write_text('{"version": 2}')
    with pytest.raises(InputError, match="Update defectlab"):
        start(tmp_path, FACTS | {"seed": 1})
    assert (beside.folder / "run.json").read_text() == '{"version": 2}'


def test_a_record_reads_like_its_json_for_scripts(tmp_path: Path):
    run = start(tmp_path)
    data = json.loads((run.folder / "run.json").read_text())
    assert dict(run.record) == data
    assert run.record["dataset"]["protocol"]["val_split_ratio"] == 0.5
    assert "sweep" not in run.record
    assert run.record.get("sweep") is None
    changed = run.record.replaced(trackers={"csv": {"where": "a"}}, mine=[1])
    assert list(changed) == [*data, "loggers", "mine"]
    assert len(changed) == len(data) + 2
    assert {key: changed[key] for key in changed} == changed.to_dict()
    for key in ("trackers", "extra", "nothing"):
        with pytest.raises(KeyError):
            changed[key]


def test_a_record_is_a_mapping_for_scripts() -> None:
    run = finished("one")
    together = run.record | {"verdict": "good"}
    assert together["verdict"] == "good"
    assert json.loads(json.dumps(together)) == run.record.to_dict() | {"verdict": "good"}
    assert {**run.record}["metrics"] == dict(run.record.metrics)
