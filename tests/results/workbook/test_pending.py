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
from defectlab.utils.disk import DiskError


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


@pytest.mark.parametrize("name", ["plain", "two\nlines", "\n", '{"folder": "a"}', "b\udcff\udcfe", "Prüfstück"])
def test_a_mark_names_the_folder_that_it_was_left_for(tmp_path: Path, name: str):
    leave_mark(tmp_path / "book.xlsx", tmp_path / name)
    assert folders_of(marks_of(tmp_path / "book.xlsx")) == [str(tmp_path / name)]


def test_a_mark_without_a_run_names_none(tmp_path: Path):
    leave_mark(tmp_path / "book.xlsx", None)
    assert len(marks_of(tmp_path / "book.xlsx")) == 1
    assert folders_of(marks_of(tmp_path / "book.xlsx")) == []


def test_marks_of_earlier_versions_are_read(tmp_path: Path):
    contents = {"1": b"", "2": b"/results/a\n", "3": b"/results/\xff\n/results/b\n"}
    for name, content in contents.items():
        (tmp_path / f".book.xlsx.pending.{name}").write_bytes(content)
    marks = marks_of(tmp_path / "book.xlsx")
    assert folders_of(marks) == ["/results/a", "/results/\udcff", "/results/b"]


@pytest.mark.usefixtures("clock_ahead")
def test_an_unfinished_mark_is_removed_only_once_no_living_process_can_be_writing_it(tmp_path: Path):
    fresh, old = (tmp_path / f"..book.xlsx.pending.{name}.1.part" for name in ("1-1", "2-2"))
    for file in (fresh, old):
        file.touch()
    os.utime(old, (1, 1))
    clear_leftovers(tmp_path / "book.xlsx")
    assert (fresh.exists(), old.exists()) == (True, False)
    assert marks_of(tmp_path / "book.xlsx") == []


def test_a_mark_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "no space", str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(DiskError):
        leave_mark(tmp_path / "book.xlsx", tmp_path)
    assert list(tmp_path.iterdir()) == []
