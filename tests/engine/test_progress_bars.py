"""Bars of a training: one a stage, and nothing left."""

from pathlib import Path
from typing import Any

import pytest
from helpers.models import data, small
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from defectlab import Engine
from defectlab.engine.progress_bars import StageBars
from defectlab.utils import progress


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
