"""Runs of a sweep reach the trackers, whichever way they were computed."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_ray import FakeRay
from helpers.fake_trackers import FakeWandb
from helpers.sweeps import settings

import defectlab.sweeps.executors.on_ray as on_ray
from defectlab.results.run.run import Run
from defectlab.sweeps.sweep import sweep

SHARED = {"model.name": "padim", "model.layers": [["layer2"]], "model.n_features": [6]}
ALONE = {"model.name": "featcae", "model.layers": [["layer2"]], "model.latent_dim": [4], "model.border": [1],
         "trainer.max_epochs": [2]}  # fmt: skip


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def rows(run: Run) -> list[dict[str, str]]:
    with (run.folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check_copy(run: Run) -> None:
    """That a run's CSV is what its record says."""
    found = rows(run)
    numbers = {name: value for name, value in run.record.metrics.items() if value is not None}
    assert {row["name"]: float(row["value"]) for row in found if row["stage"] == "test"} == numbers
    curve = [float(row["value"]) for row in found if row["name"] == "train_loss"]
    assert curve == pytest.approx(run.record.history.get("train_loss", []))
    assert run.record.trackers["csv"].where == f"results/{'/'.join(run.folder.parts[-3:])}/metrics.csv"


@pytest.mark.row("3.21")
def test_shared_and_single_runs_are_mirrored_and_so_is_a_checkpoint_made_later(parts: Path, wandb: FakeWandb):
    loggers = ["csv", {"name": "wandb", "project": "s", "checkpoint": True}]
    given = settings(parts, grid=[SHARED, ALONE], loggers=loggers)
    result = sweep(given)
    assert [one.status for one in result.outcomes] == ["finished"] * 2
    for run in result.runs:
        check_copy(run)
    tested = [one for one in wandb.runs if one.told["tags"] == ["test"]]
    assert len(tested) == 2
    assert {one.exit_code for one in wandb.runs} == {0}
    for run, copy in zip(result.runs, tested, strict=True):
        (logged,) = (values for _, values in copy.logged)
        assert logged["image_AUROC"] == run.record.metrics["image_AUROC"]
        assert {"run.json", "scores.csv"} <= set(copy.saved)
    before = len(wandb.runs)
    sweep(given)
    assert len(wandb.runs) == before, "what is finished is not mirrored again"
    sweep(given, refit=["1"])
    assert [one.saved for one in wandb.runs[before:]] == [["weights/lightning/model.ckpt"]]


def test_runs_of_ray_tasks_are_mirrored_where_the_sweep_was_started(
    parts: Path, monkeypatch: pytest.MonkeyPatch, wandb: FakeWandb
):
    monkeypatch.setattr(on_ray, "import_ray", lambda _: FakeRay())
    loggers: list[Any] = ["csv", "wandb"]
    result = sweep(settings(parts, grid=[SHARED, ALONE], loggers=loggers), executor="ray")
    assert len(result.runs) == 2
    for run in result.runs:
        check_copy(run)
        assert str(run.folder) in {one.told["dir"] for one in wandb.runs}
    assert sorted(one.told["tags"][0] for one in wandb.runs) == ["test", "test", "train"]
