import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import finished, parts_of_a_record

from defectlab.data.manifest.protocol import Protocol
from defectlab.results.run.arrays import ArrayWriter, pack_masks, unpack_masks
from defectlab.results.run.identity import differing_suffix, experiment_facts, experiment_id, readable_name
from defectlab.results.run.location import may_live
from defectlab.results.run.record import RecordError, read_record
from defectlab.results.run.run import Run, find_runs
from defectlab.results.run.scores import ScoreRow
from defectlab.results.run.setup_records import ProtocolRecord
from defectlab.utils.errors import InputError
from defectlab.utils.files import replacing, write_json

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
    assert third.folder.name == "resnet18_layer2_0.1_5_data-cccc_seed-7"


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
from defectlab.results.run.run import Run
run = Run.start(Path({str(tmp_path)!r}), "r", {{"seed": 1}}, {parts_of_a_record()!r})
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert Run.open(tmp_path / "Patchcore/bottle/r").status == "interrupted"


@pytest.mark.row("R.11")
def test_a_number_that_another_process_has_by_now_is_not_the_dead_one(tmp_path: Path):
    run = start(tmp_path)
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


def test_a_file_is_whole_or_absent(tmp_path: Path):
    target = tmp_path / "a.json"
    write_json(target, {"a": 1})
    with pytest.raises(ZeroDivisionError), replacing(target) as partial:
        partial.write_text(f"half {1 / 0}")
    assert json.loads(target.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(ValueError, match="JSON"):
        write_json(target, {"a": float("nan")})


@pytest.mark.parametrize("sent", [5, 3])
def test_arrays_are_streamed_and_cut_to_the_rows_that_came(tmp_path: Path, sent: int):
    rows = np.random.default_rng(0).random((sent, 4, 6), dtype=np.float32)
    writer = ArrayWriter(tmp_path / "maps" / "test.npy", 5, (4, 6), "float32")
    writer.append(rows[:2])
    assert not (tmp_path / "maps" / "test.npy").exists()
    writer.append(rows[2:])
    writer.close()
    assert np.array_equal(np.load(tmp_path / "maps" / "test.npy", mmap_mode="r"), rows)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["test.npy"]


def test_masks_survive_packing():
    masks = np.random.default_rng(0).random((3, 5, 13)) > 0.5
    assert np.array_equal(unpack_masks(pack_masks(masks), 13), masks)


def test_identity_ignores_where_images_lie_and_how_fast_they_are_read():
    experiment = {
        "seed": 42,
        "data": {"root": "/a", "num_workers": 2, "eval_batch_size": 8, "train_batch_size": 10, "normal_dir": "good"},
        "model": {"name": "padim", "layers": ["layer1"]},
        "backbone": {"name": "resnet18", "weights": "x.pth"},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }
    moved = json.loads(json.dumps(experiment))
    moved["data"] |= {"root": "/b", "num_workers": 0, "eval_batch_size": 1}
    moved["trainer"]["accelerator"] = "gpu"
    identity = experiment_id(experiment_facts(experiment, "m", "b"))
    assert experiment_id(experiment_facts(moved, "m", "b")) == identity
    assert experiment_id(experiment_facts(moved, "other images", "b")) != identity
    moved["model"]["layers"] = ["layer2"]
    assert experiment_id(experiment_facts(moved, "m", "b")) != identity


def test_names_stay_file_names():
    assert readable_name("padim", "timm/resnet18", {"layers": ["a"], "n_features": 5}, 1) == "timm-resnet18_a_5"
    many = {f"model.option{number}": number for number in range(9)}
    assert differing_suffix(many, {}) == f"_{experiment_id(many)[:6]}"


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


def removals(data: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key of a record that a field without a default holds."""
    for key, value in data.items():
        if isinstance(value, dict) and key not in FREE:
            yield from removals(value, (*path, key))
        yield (*path, key)


FREE = ("facts", "counts", "data", "model", "trainer", "metrics", "thresholds", "timings")
OPTIONAL = {("experiment", "name"), ("experiment", "evaluation"), ("preprocessing", "hash"), ("process", "born")}


def whole() -> dict:
    """A record with nothing in it but what is required, and `OPTIONAL`."""
    process = {"pid": 1, "host": "here", "born": None, "started": "2026-01-01T00:00:00+00:00"}
    head = {"run_id": "0123456789ab", "name": "one", "status": "running", "error": None, "facts": {}}
    data = {**head, "process": process, **parts_of_a_record()}
    del data["experiment"]["backbone"]["name"], data["experiment"]["backbone"]["weights"]
    del data["experiment"]["evaluation"]["pixel_size"]
    return data


@pytest.mark.parametrize("path", sorted(set(removals(whole())) - OPTIONAL), ids=".".join)
def test_each_key_that_is_missing_or_of_another_type_is_named(tmp_path: Path, path: tuple[str, ...]):
    for problem in ("is missing", "is "):
        data = whole()
        holder = functools.reduce(lambda part, key: part[key], path[:-1], data)
        value = holder.pop(path[-1])
        if problem == "is ":
            holder[path[-1]] = "text" if isinstance(value, list) else []
        (tmp_path / "run.json").write_text(json.dumps(data))
        with pytest.raises(RecordError, match=rf"run\.json is damaged: {re.escape('.'.join(path))} {problem}"):
            read_record(tmp_path)


def test_optional_keys_may_be_missing(tmp_path: Path):
    for path in OPTIONAL:
        data = whole()
        del data[path[0]][path[1]]
        (tmp_path / "run.json").write_text(json.dumps(data))
        assert read_record(tmp_path).to_dict() == {"version": 1} | data


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


def test_the_protocol_of_a_manifest_is_recorded_whole() -> None:
    protocol = Protocol(
        test_split_mode="from_dir", test_split_ratio=None, val_split_mode="from_test", val_split_ratio=0.5,
        validation_is_test=False, test_normal_from="their own folder", validation_from="the test images",
        counts={"test": {"good": 1}}, group="(.*)_", group_counts={"test": {"good": 2}},
    )  # fmt: skip
    record = ProtocolRecord.from_dict(protocol.to_dict() | {"later": 1})
    assert record.to_dict() == protocol.to_dict() | {"later": 1}
    assert protocol.to_dict()["parts"] == record.group_counts == {"test": {"good": 2}}
    assert Protocol.from_dict(protocol.to_dict()) == protocol
    old = {key: value for key, value in protocol.to_dict().items() if key not in ("parts", "task", "n_val_good")}
    assert ProtocolRecord.from_dict(old).to_dict() == old
    assert record.threshold_source == "validation"
