"""Bars: silence where nobody looks, several in one terminal, and what a notebook shows."""

import io

import pytest

from defectlab.utils import progress


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
