"""Which process owns a run's folder: processes of this machine by number and start, others by their heartbeat."""

import errno
import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import parts_of_a_record

from defectlab.results.map_retention import drop_maps
from defectlab.results.run import ownership, processes
from defectlab.results.run.arrays import ArrayWriter
from defectlab.results.run.log import logged
from defectlab.results.run.ownership import EXPIRY_SECONDS, OWNER, beat, is_alive, is_owned, release, runs_elsewhere
from defectlab.results.run.run import Run
from defectlab.utils.files import write_json
from defectlab_runtime.errors import BusyError, InputError


def start(root: Path) -> Run:
    return Run.start(root, "r", {"seed": 1}, parts_of_a_record())


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of a process on another machine, whose heartbeat is of this moment."""
    monkeypatch.setattr(ownership, "WATCH_SECONDS", 0.0)
    run = start(tmp_path)
    release(run.folder)
    run.update(process=run.record.process.replaced(host="another machine", born="boot 1", namespace="pid:[1]"))
    (run.folder / OWNER).write_text("of another machine")
    return run


def set_age(run: Run, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(run.folder / OWNER, (then, then))


def test_a_run_of_another_machine_is_known_by_the_age_of_its_heartbeat(elsewhere: Run, tmp_path: Path):
    assert runs_elsewhere(elsewhere.folder, elsewhere.record)
    with pytest.raises(BusyError, match="of another machine is running this experiment now"):
        start(tmp_path)
    set_age(elsewhere, EXPIRY_SECONDS - 60)
    assert is_alive(elsewhere.folder, elsewhere.record)
    set_age(elsewhere, EXPIRY_SECONDS + 60)
    assert not is_alive(elsewhere.folder, elsewhere.record)
    assert elsewhere.status == "interrupted"
    assert start(tmp_path).folder == elsewhere.folder


def test_the_age_is_that_of_the_file_system_not_of_this_machines_clock(elsewhere: Run, monkeypatch: pytest.MonkeyPatch):
    for hours in (-48, 48):
        now = time.time() + hours * 3600
        monkeypatch.setattr(ownership.time, "time", lambda now=now: now)
        assert is_owned(elsewhere.folder, elsewhere.record)


@pytest.mark.parametrize("seconds", [EXPIRY_SECONDS + 3600, -24 * 3600.0])
def test_after_a_clock_was_set_a_living_owner_is_known_by_its_next_beat(
    elsewhere: Run, monkeypatch: pytest.MonkeyPatch, seconds: float
):
    set_age(elsewhere, seconds)
    assert not is_owned(elsewhere.folder, elsewhere.record)
    monkeypatch.setattr(ownership.time, "sleep", lambda _: beat(elsewhere.folder / OWNER, "of another machine"))
    set_age(elsewhere, seconds)
    assert is_owned(elsewhere.folder, elsewhere.record)


def test_this_machine_under_an_earlier_boot_is_not_waited_for(elsewhere: Run, monkeypatch: pytest.MonkeyPatch):
    own = elsewhere.record.process.replaced(host=socket.gethostname(), namespace=None)
    elsewhere.update(process=own)
    monkeypatch.setattr(processes, "_start_time", lambda pid: "a later boot 1")
    assert not is_owned(elsewhere.folder, elsewhere.record)


def test_a_container_of_this_machine_is_not_judged_by_our_process_numbers(elsewhere: Run):
    process = elsewhere.record.process.replaced(
        host=socket.gethostname(), born=processes.this_process()["born"], pid=2**22 - 1
    )
    elsewhere.update(process=process.replaced(namespace="pid:[1]"))
    changed = iter(range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ownership, "_date", lambda folder: float(next(changed)))
        patch.setattr(ownership, "is_recent", lambda folder, seconds: False)
        assert is_owned(elsewhere.folder, elsewhere.record), "it beats"
    elsewhere.update(process=process.replaced(namespace=None))
    assert not is_owned(elsewhere.folder, elsewhere.record), "no such number here"


def test_a_heartbeat_dates_the_file_anew_and_leaves_that_of_another_owner(tmp_path: Path):
    file = tmp_path / OWNER
    file.write_text("mine")
    os.utime(file, (1, 1))
    beat(file, "theirs")
    assert file.stat().st_mtime == 1
    beat(file, "mine")
    assert file.stat().st_mtime > 1
    assert file.read_text() == "mine"


def test_a_run_whose_folder_was_taken_says_so_and_writes_nothing(tmp_path: Path):
    run = start(tmp_path)
    (run.folder / OWNER).write_text("another")
    with pytest.raises(InputError, match="taken by another process"):
        run.update(notes={"a": "b"})
    assert "notes" not in json.loads((run.folder / "run.json").read_text())


def test_a_run_whose_folder_was_removed_does_not_make_it_anew(tmp_path: Path):
    run = start(tmp_path)
    run.folder.rename(tmp_path / "away")
    with pytest.raises(InputError, match="was removed"):
        run.advance("fitted")
    assert not run.folder.exists()


@pytest.mark.parametrize("taken", [True, False])
def test_a_process_that_has_lost_its_folder_writes_nothing_there_and_makes_it_not_anew(tmp_path: Path, taken: bool):
    """As on a machine that wakes after another has taken its run over."""
    run = start(tmp_path)
    maps = ArrayWriter(run.maps_path("test"), 1, (2, 2), "float32")
    run.folder.rename(tmp_path / "away")
    if taken:
        run.folder.mkdir()
        (run.folder / OWNER).write_text("another")
        (run.folder / "maps").mkdir()
        run.maps_path("test").write_bytes(b"theirs")
    writes = {
        "scores": lambda: run.write_scores([]),
        "record": lambda: run.update(notes={}),
        "new maps": lambda: ArrayWriter(run.maps_path("validation"), 1, (2, 2), "float32"),
        "maps": maps.close,
        "dropped maps": lambda: drop_maps(run, "none"),
        "any other": lambda: write_json(run.folder / "report" / "x.json", {}),
    }
    for name, write in writes.items():
        with pytest.raises(InputError, match="was removed or taken"), run.recording_failure():
            write()
        ownership._HEART.claims[run.folder.absolute()] = "ours"  # which the recorded failure gave up
        there = sorted(file.name for file in run.folder.rglob("*"))
        assert there == ([OWNER, "maps", "test.npy"] if taken else []), name
    with logged(run):
        logging.getLogger("defectlab").warning("lost")
    assert not (run.folder / "log.txt").exists()
    if taken:
        assert run.maps_path("test").read_bytes() == b"theirs"


def test_a_trained_run_stays_owned_until_it_is_tested(tmp_path: Path):
    run = start(tmp_path)
    run.advance("fitted")
    assert is_owned(run.folder, run.record)
    mark = ownership.claim_of(run.folder)
    assert (run.folder / OWNER).read_text() == mark
    release(run.folder, "an earlier claim")
    assert ownership.claim_of(run.folder) == mark
    run.claim()
    assert ownership.claim_of(run.folder) == mark, "its own already"
    release(run.folder, mark)
    assert not (run.folder / OWNER).exists()


def test_a_finished_or_failed_run_has_no_owner(tmp_path: Path):
    run = start(tmp_path)
    assert (run.folder / OWNER).is_file()
    run.advance("finished")
    assert not (run.folder / OWNER).exists()
    other = Run.start(tmp_path, "other", {"seed": 2}, parts_of_a_record())
    with pytest.raises(ValueError, match="x"), other.recording_failure():
        raise ValueError("x")
    assert not (other.folder / OWNER).exists()


def test_a_drive_that_fails_for_a_moment_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    ownership.claim(tmp_path)

    def stale(*_: Any, **__: Any) -> str:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", stale)
        ownership.check_claim(tmp_path)
    assert "Stale file handle" in caplog.text
    (tmp_path / ownership.OWNER).unlink()
    with pytest.raises(InputError, match="was removed or taken"):
        ownership.check_claim(tmp_path)


@pytest.mark.parametrize("change", [{"pid": 2**40}, {"pid": -(2**40)}, {"born": ""}, {"started": 3}, {"host": None}])
def test_an_owner_that_cannot_be_is_none(tmp_path: Path, change: dict[str, Any]):
    owner = processes.this_process() | {"started": "1.0"} | change
    (tmp_path / OWNER).write_text(json.dumps(owner))
    assert is_owned(tmp_path, None)  # as a folder without an owner that was made just now
    (tmp_path / OWNER).write_text("[" * 100_000)
    os.utime(tmp_path / OWNER, (0, 0))
    assert not is_owned(tmp_path, None)
