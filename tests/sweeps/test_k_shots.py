"""Fits with a few images in a sweep: of every configuration, on its one extraction, and made up where they lack."""

from pathlib import Path
from typing import Any

import pytest
from helpers.experiments import experiment
from helpers.sweeps import settings
from helpers.workbook import open_book

import defectlab.backbones.feature_cache.extraction as extracting
import defectlab.engine.k_shots as k_shots
from defectlab.results.run.run import Run, find_runs
from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.run_many import run_many
from defectlab.sweeps.sweep import sweep
from defectlab_runtime.errors import OptionError

LAYERS = [["layer1", "layer2"]]
GRID = [
    {"model.name": "patchcore", "model.layers": LAYERS, "model.coreset_sampling_ratio": 0.2, "model.num_neighbors": 1},
    {"model.name": "padim", "model.layers": LAYERS, "model.n_features": 7},
]


def asked(root: Path, **more: Any) -> dict[str, Any]:
    whole = settings(root, grid=GRID, **more)
    return {**whole, "data": {**whole["data"], "k_shots": [2, 3, "all"], "k_shot_draws": 2}}


def keys(run: Run) -> list[tuple[int, int, int]]:
    return [] if run.record.k_shots is None else [fit.key for fit in run.record.k_shots.fits]


WANTED = [(8, 0, 42), (2, 0, 42), (2, 1, 42), (3, 0, 42), (3, 1, 42)]


def test_every_configuration_has_its_fits_on_one_extraction(
    parts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    passes: list[Any] = []
    compute = extracting._compute
    monkeypatch.setattr(extracting, "_compute", lambda *a: (passes.append(sorted(a[3])), compute(*a)))
    result = sweep(asked(parts))
    assert passes == [["layer1", "layer2"]]
    assert [one.status for one in result.outcomes] == ["finished"] * 2
    runs = find_runs()
    assert [keys(run) for run in runs] == [WANTED] * 2
    of = [[fit.images for fit in run.record.k_shots.fits] for run in runs if run.record.k_shots]
    assert of[0] == of[1]  # the same draws, so that models compare
    assert capsys.readouterr().out.count("How many good images: ") == 2
    assert "k-shots" in open_book().sheetnames

    padim = next(run for run in runs if run.model == "Padim")
    padim.update(k_shots=None)
    monkeypatch.setattr(extracting, "_compute", lambda *a: pytest.fail("extracted again"))
    again = sweep(asked(parts))
    assert [one.status for one in again.outcomes] == ["kept"] * 2
    assert [keys(run) for run in find_runs()] == [WANTED] * 2


def test_one_that_fails_stops_no_other_and_is_a_problem(parts: Path, monkeypatch: pytest.MonkeyPatch):
    real = k_shots._Study._scores

    def scores(self: Any, *rest: Any) -> Any:
        if self.model.name == "Patchcore":
            raise RuntimeError("a broken machine")
        return real(self, *rest)

    monkeypatch.setattr(k_shots._Study, "_scores", scores)
    result = sweep(asked(parts))
    assert [one.status for one in result.outcomes] == ["finished"] * 2
    (problem,) = result.problems
    assert problem.startswith("Patchcore ")
    assert problem.endswith("RuntimeError: a broken machine")
    assert sorted(map(len, map(keys, find_runs()))) == [1, 5]


def test_numbers_are_one_value_of_a_grid_and_no_choices(parts: Path):
    config = SweepConfig.from_dict(settings(parts, grid=[{**GRID[1], "data.k_shots": [1, 2, "all"]}]))
    assert [one["data"]["k_shots"] for one in config.expanded()] == [[1, 2, "all"]]


def test_a_search_makes_none(parts: Path):
    with pytest.raises(OptionError, match="A search makes no k_shots"):
        sweep(asked(parts, search={"trials": 2}))


def test_a_finished_run_gets_what_it_lacks_and_is_not_trained_again(parts: Path, monkeypatch: pytest.MonkeyPatch):
    model = {"name": "padim", "layers": ["layer1"], "n_features": 5, "image_size": [64, 64]}
    (first,) = run_many([experiment(parts, model=model)])
    with_fits = experiment(parts, model=model)
    data = {**with_fits.to_dict()["data"], "k_shots": [2, 4], "k_shot_draws": 2}
    monkeypatch.setattr("defectlab.sweeps.run_many.train_built", lambda *_: pytest.fail("trained again"))
    (second,) = run_many([type(with_fits).from_dict({**with_fits.to_dict(), "data": data})])
    assert second.record.run_id == first.record.run_id
    assert keys(second) == [(2, 0, 42), (2, 1, 42), (4, 0, 42), (4, 1, 42)]
