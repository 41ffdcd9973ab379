"""One process renders the workbook for all that wait; stepped through the waiting process's own pauses."""

import os
from pathlib import Path

import pytest
from filelock import Timeout

from defectlab.results.workbook import pending
from defectlab.results.workbook.pending import (
    clear_leftovers,
    folders_of,
    leave_mark,
    lock_of,
    marks_of,
    render_or_wait,
)


def take_in(path: Path, taken: list[str]) -> bool:
    taken += folders_of(marks := marks_of(path))
    for mark in marks:
        mark.unlink()
    return True


def test_a_renderer_that_is_killed_is_taken_over_with_all_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, taken = tmp_path / "book.xlsx", list[str]()
    killed = lock_of(path)
    killed.acquire()
    leave_mark(path, Path("killed"))
    mark = leave_mark(path, Path("waiting"))
    monkeypatch.setattr(pending, "pause", killed.release)
    assert render_or_wait(path, mark, lambda: take_in(path, taken))
    assert sorted(taken) == ["killed", "waiting"]


def test_a_process_whose_mark_another_takes_in_does_not_render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, taken = tmp_path / "book.xlsx", list[str]()
    with lock_of(path):
        mark = leave_mark(path, Path("waiting"))
        monkeypatch.setattr(pending, "pause", lambda: take_in(path, taken))
        assert render_or_wait(path, mark, lambda: pytest.fail("rendered twice")) is None
    assert taken == ["waiting"]


def test_a_mark_left_while_another_renders_is_taken_in_before_that_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, taken = tmp_path / "book.xlsx", list[str]()
    monkeypatch.setattr(pending, "WAIT_SECONDS", 600.0)

    def render() -> bool:
        take_in(path, taken)
        if len(taken) == 1:  # a process that comes late and does not wait
            mark = leave_mark(path, Path("late"))
            monkeypatch.setattr(pending, "WAIT_SECONDS", -1.0)
            with pytest.raises(Timeout):
                render_or_wait(path, mark, render)
        return True

    assert render_or_wait(path, leave_mark(path, Path("first")), render)
    assert taken == ["first", "late"]


@pytest.mark.usefixtures("clock_ahead")
def test_a_mark_that_is_being_written_stays_where_clocks_differ(tmp_path: Path):
    path = tmp_path / "book.xlsx"
    young, old = tmp_path / ".book.xlsx.marking.1-1", tmp_path / ".book.xlsx.marking.2-2"
    young.touch()
    old.touch()
    os.utime(old, (1, 1))
    clear_leftovers(path)
    assert (young.exists(), old.exists()) == (True, False)
