"""The lock of a folder that needs no file locks."""

import json
import os
from pathlib import Path

import pytest

from defectlab.results.run import folder_lock as module
from defectlab.results.run.folder_lock import NAME, SILENT_SECONDS, folder_lock
from defectlab.results.run.ownership import OWNER
from defectlab.results.run.processes import this_process

ELSEWHERE = {"host": "another machine", "pid": 1, "started": ""}
ENDED = {**this_process(), "pid": 2**22 - 1, "started": ""}


def hold(parent: Path, process: dict[str, object]) -> Path:
    (parent / NAME).mkdir()
    (parent / NAME / OWNER).write_text(json.dumps(process))
    return parent / NAME


class Clock:
    """A clock that a pause moves on by a second; `beat` is called with the seconds that have passed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, beat=lambda seconds: None) -> None:
        self.seconds, self._beat = 0, beat
        monkeypatch.setattr(module, "pause", self.pause)
        monkeypatch.setattr(module.time, "monotonic", lambda: float(self.seconds))

    def pause(self) -> None:
        self.seconds += 1
        self._beat(self.seconds)


def test_who_waits_goes_on_when_the_holder_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lock = hold(tmp_path, ELSEWHERE)
    monkeypatch.setattr(module, "pause", lambda: lock.rename(tmp_path / "released"))
    with folder_lock(tmp_path):
        assert json.loads((lock / OWNER).read_text())["pid"] == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == ["released"]


def test_a_silent_machine_loses_the_lock_and_one_that_beats_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lock = hold(tmp_path, ELSEWHERE)

    def beat(seconds: int) -> None:
        if seconds % 10 == 0 and seconds <= 500:
            os.utime(lock / OWNER, (seconds, seconds))

    clock = Clock(monkeypatch, beat)
    with folder_lock(tmp_path):
        assert 500 + SILENT_SECONDS <= clock.seconds <= 503 + SILENT_SECONDS


def test_the_lock_of_an_ended_process_is_taken_over_at_once_and_what_is_left_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hold(tmp_path, ENDED)
    clock = Clock(monkeypatch)
    with folder_lock(tmp_path):
        assert clock.seconds == 0
    (broken,) = tmp_path.iterdir()
    for path in (broken / OWNER, broken):
        os.utime(path, (1, 1))
    with folder_lock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_found_abandoned_that_another_has_taken_over_meanwhile_is_not_moved(tmp_path: Path):
    """Both found it abandoned; the other one was faster and holds the lock now."""
    lock = hold(tmp_path, ENDED)
    mark = (lock / OWNER).read_text()
    with folder_lock(tmp_path):
        module._break(lock, mark)
        assert json.loads((lock / OWNER).read_text())["pid"] == os.getpid()


def test_who_lost_the_lock_leaves_that_of_the_next(tmp_path: Path):
    with folder_lock(tmp_path):
        (tmp_path / NAME).rename(tmp_path / "taken over")
        hold(tmp_path, ELSEWHERE)
    assert json.loads((tmp_path / NAME / OWNER).read_text())["host"] == "another machine"


def test_a_folder_that_cannot_be_written_is_an_error_and_no_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    with pytest.raises(FileNotFoundError), folder_lock(tmp_path / "none"):
        pass

    def broken(self: Path, target: Path) -> None:
        raise PermissionError(13, "no", str(self))

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(PermissionError), folder_lock(tmp_path):
        pass
    assert clock.seconds == module.MISSES
