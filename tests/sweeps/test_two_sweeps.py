"""One sweep in two processes: what the other runs or has finished is no failure; what a plan learns from records."""

import os
import shutil
import socket
from pathlib import Path

import pytest
from helpers.sweeps import settings

import defectlab.sweeps.sweep as running
from defectlab.cli import main
from defectlab.results.run.run import find_runs
from defectlab.sweeps.sweep import sweep
from defectlab.sweeps.table import Outcome
from defectlab.utils.config_files import as_yaml

GRID = [
    {"model.name": "padim", "model.layers": [["layer2"]], "model.n_features": [6]},
    {"model.name": "featcae", "model.layers": [["layer2"]], "model.latent_dim": [4], "model.border": [1],
     "trainer.max_epochs": [2]},
]  # fmt: skip


@pytest.fixture(scope="module")
def done(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with both configurations finished; read only."""
    home = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTLAB_HOME", str(home))
        assert not sweep(settings(parts, grid=GRID)).failed
    return home


@pytest.fixture
def copy(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to write to."""
    shutil.copytree(done, tmp_path / "copy")
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path / "copy"))
    return tmp_path / "copy"


@pytest.mark.row("R.22")
def test_what_another_process_is_running_is_said_so_and_no_failure(
    copy: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    for run in find_runs():
        process = {"pid": os.getppid(), "host": socket.gethostname(), "started": run.record.process.started}
        run.update(status="running", process=process)
    result = sweep(settings(parts, grid=GRID))
    assert [one.status for one in result.outcomes] == ["busy", "busy"]
    assert all(f"being run by another process. Process {os.getppid()}" in (one.error or "") for one in result.outcomes)
    assert result.failed == []
    assert {run.status for run in find_runs()} == {"running"}, "its record stays the other process's"
    assert capsys.readouterr().out.count("busy: ") == 2
    file = tmp_path / "sweep.yaml"
    file.write_text(as_yaml(settings(parts, grid=GRID[:1])))
    assert main(["sweep", "--config", str(file)]) == 0


@pytest.mark.row("R.22")
def test_what_another_process_has_finished_meanwhile_is_kept(copy: Path, parts: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(running, "earlier_runs", lambda *_: {})  # when this sweep was planned there was nothing
    before = {run.folder: run.record for run in find_runs()}
    result = sweep(settings(parts, grid=GRID))
    assert len(result.plan.pending) == 2
    assert [one.status for one in result.outcomes] == ["kept", "kept"]
    assert {run.folder: run.record for run in find_runs()} == before


def test_the_plan_estimates_a_training_from_recorded_ones(copy: Path, parts: Path):
    longer = {**GRID[1], "trainer.max_epochs": [6]}
    (recorded,) = (run for run in find_runs() if run.model == "FeatCae")
    taken = recorded.record.timings["fit"] + recorded.record.timings["validation"]
    cflow = {"model.name": "cflow", "model.layers": [["layer2"]]}
    plan = sweep(settings(parts, grid=[longer, cflow]), plan_only=True).plan
    known, unknown = (step for step in plan.steps if step.what.startswith("training"))
    assert known.seconds == pytest.approx(3 * taken)
    assert known.what.endswith("(as a recorded run)")
    assert unknown.seconds is None
    larger = settings(parts, grid=[longer], model={"image_size": [64, 128]})
    (step,) = (step for step in sweep(larger, plan_only=True).plan.steps if step.what.startswith("training"))
    assert step.seconds == pytest.approx(6 * taken)  # twice the pixels
    recorded.update(environment=recorded.record.environment.replaced(device="cuda:0"))
    (step, _) = (
        step
        for step in sweep(settings(parts, grid=[longer, cflow]), plan_only=True).plan.steps
        if step.what.startswith("training")
    )
    assert step.seconds is None, "what a GPU took says nothing of a CPU"


def test_only_what_failed_is_called_failed():
    states = ("finished", "kept", "busy", "pruned", "failed", "refused")
    failures = [state for state in states if Outcome(1, "x", "d", 0, state).is_failure]
    assert failures == ["failed", "refused"]
