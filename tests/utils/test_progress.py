"""Bars: one place for all, nothing left, silence where nobody looks; and errors without a traceback in notebooks."""

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from helpers.models import data, small
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from defectlab import Engine, InputError, make_sample
from defectlab.engine.progress_bars import StageBars
from defectlab.utils import paths, progress
from defectlab.utils.errors import WeightsError
from defectlab.utils.logs import show_log


class Recorded:
    """A display that keeps what it was told."""

    def __init__(self) -> None:
        self.shown: dict[int, str] = {}
        self.events: list[tuple[str, int, int | None]] = []

    def add(self, label: str, total: int | None, of_bytes: bool) -> int:
        number = len(self.events)
        self.shown[number] = label
        self.events.append((label, 0, total))
        return number

    def update(self, number: int, done: int, total: int | None, label: str | None) -> None:
        self.events.append((label or self.shown[number], done, total))

    def remove(self, number: int) -> None:
        del self.shown[number]


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded()
    monkeypatch.setattr(progress, "is_interactive", lambda: True)
    monkeypatch.setattr(progress, "_display", lambda: recorded)
    return recorded


def last(display: Recorded, stage: str) -> tuple[int, int | None]:
    return [(done, total) for label, done, total in display.events if label.startswith(stage)][-1]


def test_each_stage_has_one_bar_and_leaves_none(parts: Path, display: Recorded):
    Engine(max_epochs=1, enable_progress_bar=True).train(model=small("patchcore"), datamodule=data(parts))
    assert last(display, "Training") == (3, 3)
    assert last(display, "Validation") == (1, 1)
    assert last(display, "Test") == (1, 1)
    done, total = last(display, "Coreset")
    assert done == total
    assert display.shown == {}


def test_many_epochs_are_one_bar(parts: Path, display: Recorded):
    Engine(max_epochs=2, enable_progress_bar=True).fit(model=small("cflow"), datamodule=data(parts))
    assert [event for event in display.events if event == ("Training", 0, 6)] == [("Training", 0, 6)]
    assert last(display, "Training, epoch 2 of 2") == (6, 6)
    assert display.shown == {}


def test_a_failure_leaves_no_bar(parts: Path, display: Recorded, monkeypatch: pytest.MonkeyPatch):
    model = small("patchcore")
    monkeypatch.setattr(model.model, "embed", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Engine(max_epochs=1, enable_progress_bar=True).fit(model=model, datamodule=data(parts))
    assert display.shown == {}


def test_a_users_own_bar_is_left_alone():
    def bars(engine: Engine) -> list[Any]:
        return [type(callback) for callback in engine._bars() if isinstance(callback, ProgressBar)]

    assert bars(Engine(enable_progress_bar=True)) == [StageBars]
    assert bars(Engine(enable_progress_bar=False)) == []
    assert bars(Engine(enable_progress_bar=True, callbacks=[TQDMProgressBar()])) == []


def test_nobody_watches_a_log_file(capsys: pytest.CaptureFixture[str]):
    with progress.progress_bar("Work", 3) as update:
        update(1, 3)
    assert capsys.readouterr() == ("", "")


def test_bars_share_a_terminal_and_clear_it(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    shown = progress.TerminalDisplay()
    first = shown.add("Training", 10, False)
    second = shown.add("Coreset", 5, False)
    shown.update(second, 3, 5, None)
    shown.remove(second)
    shown.remove(first)
    assert shown._progress is None


def test_a_notebooks_bar_says_what_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 30.0)
    bar = progress._NotebookBar("Training <1>", 4, False, done=1, started=0.0)
    shown = bar.html()
    assert "1 of 4, 1:30 left, 0:30 so far" in shown
    assert "Training &lt;1&gt;" in shown


def test_the_log_goes_where_standard_error_is_now(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    package = logging.getLogger("defectlab")
    monkeypatch.setattr(package, "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    show_log()
    later = io.StringIO()
    monkeypatch.setattr("sys.stderr", later)
    package.info("here")
    assert later.getvalue() == "here\n"


def test_a_notebook_shows_an_errors_message_alone():
    assert WeightsError("No weights.")._render_traceback_() == ["WeightsError: No weights."]
    assert InputError("Two\nlines")._render_traceback_() == ["InputError: Two\nlines"]


def test_the_fix_names_the_program_as_it_is_called_here(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    script = own_project / ".venv/bin/defectlab"
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.setattr("sys.executable", str(script.with_name("python")))
    assert paths.program() == ".venv/bin/defectlab"
    monkeypatch.setattr("sys.executable", str(own_project / "elsewhere/python"))
    monkeypatch.setenv("PATH", "")
    assert paths.program() == "python -m defectlab"


def test_a_persons_own_folder_is_left_as_it_is_when_asked(tmp_path: Path):
    (tmp_path / "bottle").mkdir()
    (tmp_path / "bottle/photo.png").write_bytes(b"x")
    assert make_sample("coins", tmp_path / "bottle", exist_ok=True) == tmp_path / "bottle"
    assert [path.name for path in (tmp_path / "bottle").iterdir()] == ["photo.png"]
    made = make_sample("digits", tmp_path / "new", exist_ok=True, limit_data=1)
    assert (made / "sample.json").is_file()
