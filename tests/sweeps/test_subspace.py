"""Subspace's configurations in a sweep: one decomposition serves all, and their records are those of single runs."""

from pathlib import Path

import pytest
from helpers.sweeps import assert_equal_runs, settings

from defectlab import Detector
from defectlab.experiment import Experiment, run
from defectlab.kernels.subspace import PatchSums
from defectlab.results.run.run import find_runs
from defectlab.sweeps.sweep import sweep

GRID = [
    {"model.name": "subspace", "model.layers": [["layer1", "layer2"]], "model.explained_variance": [0.9, 0.99],
     "model.top_share": [0, 0.01]},
    {"model.name": "subspace", "model.layers": [["layer1", "layer2"]], "model.n_components": [4]},
]  # fmt: skip


def test_a_sweep_records_what_single_runs_do(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[int] = []
    real = PatchSums.principal_axes
    monkeypatch.setattr(PatchSums, "principal_axes", lambda self: (made.append(self.count), real(self))[1])
    result = sweep(settings(parts, grid=GRID, checkpoints="all"))
    assert [one.status for one in result.outcomes] == ["finished"] * 5
    assert made == [8 * 16 * 16] * 6  # once for all five, then one fit for each checkpoint
    shared = find_runs()
    for one in shared:
        row = one.scores("test")[0]
        assert Detector.load(one.folder).predict(row.image_path)[0].score == pytest.approx(row.score, rel=1e-4)
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path / "alone"))
    alone = [run(Experiment.from_yaml(one.folder / "experiment.yaml")) for one in shared[:3]]
    chosen = {one.record.run_id for one in alone}
    assert_equal_runs([one for one in shared if one.record.run_id in chosen], alone)


def test_one_that_takes_every_direction_fails_alone(parts: Path):
    grid = [{"model.name": "subspace", "model.layers": [["layer1"]], "model.explained_variance": [1.0, 0.9]}]
    result = sweep(settings(parts, grid=grid))
    found = {one.settings["model"]["explained_variance"]: one for one in result.outcomes}
    assert found[0.9].status == "finished"
    assert found[1.0].status == "failed"
    assert "nothing lies outside" in (found[1.0].error or "")
