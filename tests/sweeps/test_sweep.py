"""Sweeps: shared work, and every configuration on record as if it had been trained alone."""

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.sweeps import GRID, LAYERS, comparable_rows, settings

import defectlab.backbones.feature_cache.extraction as extracting
import defectlab.sweeps.execute as execute
import defectlab.sweeps.patchcore as patchcore
from defectlab.data.manifest.manifest import Manifest
from defectlab.experiment import Experiment, run
from defectlab.models.loading import restore
from defectlab.results.run.run import Run, find_runs
from defectlab.results.workbook import read_workbook
from defectlab.sweeps.config import SweepConfig, with_overrides
from defectlab.sweeps.sweep import sweep
from defectlab.sweeps.table import Outcome, mean_rows
from defectlab_runtime.errors import DataError, InputError, OptionError


@pytest.fixture(scope="module")
def done(parts: Path, tmp_path_factory: pytest.TempPathFactory):
    """One sweep of twelve configurations in a project of its own; read only."""
    home = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTLAB_HOME", str(home))
        orders, passes = [], []
        real = patchcore.coreset_size
        patch.setattr(patchcore, "coreset_size", lambda n, ratio: (orders.append(n), real(n, ratio))[1])
        compute = extracting._compute
        patch.setattr(extracting, "_compute", lambda *a: (passes.append(sorted(a[3])), compute(*a)))
        result = sweep(settings(parts))
        rows = read_workbook()
    return home, result, rows, passes


@pytest.fixture
def here(done: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project of that sweep."""
    monkeypatch.setenv("DEFECTLAB_HOME", str(done[0]))
    return done[0]


@pytest.mark.row("S.1")
def test_every_configuration_is_on_record_and_the_backbone_ran_once(done: Any, here: Path):
    _, result, rows, passes = done
    assert len(result.outcomes) == 12
    assert {one.status for one in result.outcomes} == {"finished"}
    assert passes == [["layer1", "layer2", "layer3"]]
    runs = find_runs()
    assert len(runs) == 12
    assert all(one.status == "finished" and one.record.checkpoint is None for one in runs)
    assert len(rows) == 12
    table = (result.folder / "table.csv").read_text().splitlines()
    assert len(table) == 13


def _single(one: Run, folder: Path) -> Run:
    """The same experiment, trained alone by the engine."""
    data = {key: value for key, value in one.record.experiment.to_dict().items() if key != "name"}
    data["model"] = {key: value for key, value in data["model"].items() if key != "center_crop"}
    data["trainer"] = {"accelerator": "cpu", "default_root_dir": str(folder)}
    data["backbone"] = {"name": "resnet18", "weights": "random"}
    return run(Experiment.from_dict(data))


@pytest.mark.row("S.5")
def test_numbers_are_those_of_single_runs(done: Any, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEFECTLAB_WORKBOOK", str(tmp_path / "other.xlsx"))
    monkeypatch.setenv("DEFECTLAB_RESULTS", str(tmp_path / "single"))
    chosen = [one for one in done[1].outcomes if one.label.endswith(("_0.2_3", "_0.05_1", "_7"))]
    assert len(chosen) == 6
    for outcome in random.Random(0).sample(chosen, 4):
        own = Run.open(here / outcome.record)
        alone = _single(own, tmp_path / "single")
        assert own.record.run_id == alone.record.run_id
        assert own.record.name == alone.record.name
        assert own.record.facts == alone.record.facts
        for split in ("validation", "test"):
            ours, theirs = own.scores(split), alone.scores(split)
            assert [(r.image_path, r.label, r.defect) for r in ours] == [
                (r.image_path, r.label, r.defect) for r in theirs
            ]
            np.testing.assert_allclose([r.score for r in ours], [r.score for r in theirs], rtol=1e-4)
            assert [r.pred_label for r in ours] == [r.pred_label for r in theirs]
            np.testing.assert_allclose(own.maps(split), alone.maps(split), rtol=1e-4, atol=1e-4)
            assert np.array_equal(own.masks(split), alone.masks(split))
        for name, value in alone.record.metrics.items():
            assert own.record.metrics[name] == pytest.approx(value, abs=1e-6), name
        assert set(own.record) - {"sweep"} == set(alone.record)
        assert Manifest.read(own.folder / "manifest.json").hash == Manifest.read(alone.folder / "manifest.json").hash


@pytest.mark.row("0.6")
def test_configurations_that_differ_in_neighbours_only_agree_on_pixels(done: Any, here: Path):
    by_name = {one.label: Run.open(here / one.record) for one in done[1].outcomes}
    one, three = (by_name[f"Patchcore resnet18_layer2-layer3_0.2_{k}"] for k in (1, 3))
    assert np.array_equal(one.maps("test"), three.maps("test"))
    pixel = [name for name in one.record.metrics if name.startswith("pixel")]
    assert {name: one.record.metrics[name] for name in pixel} == {n: three.record.metrics[n] for n in pixel}
    assert [r.score for r in one.scores("test")] != [r.score for r in three.scores("test")]


def test_finished_ones_are_not_done_again(done: Any, here: Path, parts: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(execute, "write_run", lambda *_: pytest.fail("done again"))
    again = sweep(settings(parts))
    assert {one.status for one in again.outcomes} == {"kept"}
    assert [one.metrics for one in again.outcomes] == [one.metrics for one in done[1].outcomes]


def small_grid(**options: Any) -> list[dict[str, Any]]:
    return [{"model.name": "padim", "model.layers": [["layer2", "layer3"]], "model.n_features": [5, 9], **options}]


@pytest.mark.row("0.5", "S.8")
def test_a_failing_configuration_stops_no_other_and_is_tried_again_on_request(
    parts: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "defectlab")
    real = execute.write_run
    broken = True

    def write(scored: Any, *rest: Any) -> Run:
        if broken and scored.configuration.model.options["n_features"] == 5:
            with scored.configuration.engine.begin(
                scored.configuration.model, scored.configuration.datamodule
            ).run.recording_failure():
                raise RuntimeError("disk full")
        return real(scored, *rest)

    monkeypatch.setattr(execute, "write_run", write)
    grid = [*small_grid(), {"model.name": "padim", "model.n_features": 9999, "model.layers": [["layer1"]]}]
    first = sweep(settings(parts, grid=grid))
    assert [one.status for one in first.outcomes] == ["failed", "finished", "refused"]
    assert "disk full" in (first.outcomes[0].error or "")
    assert "n_features must be 1 to 64" in (first.outcomes[2].error or "")
    assert len(first.failed) == 2
    broken = False
    assert [one.status for one in sweep(settings(parts, grid=grid)).outcomes] == ["failed", "kept", "refused"]
    again = sweep(settings(parts, grid=grid), retry_failed=True)
    assert [one.status for one in again.outcomes] == ["finished", "kept", "refused"]


def test_shared_work_that_fails_is_on_record_with_each_that_needed_it(parts: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(execute, "SCORERS", {**execute.SCORERS, "padim": lambda *_: 1 / 0})
    result = sweep(settings(parts, grid=[*small_grid(), {**GRID[0], "model.layers": [LAYERS[0]]}]))
    assert [one.status for one in result.outcomes] == ["failed"] * 2 + ["finished"] * 4
    failed = [one for one in find_runs() if one.status == "failed"]
    assert len(failed) == 2
    assert all("ZeroDivisionError" in one.record.error.summary for one in failed)


@pytest.mark.row("S.4")
def test_the_plan_computes_nothing(parts: Path, capsys: pytest.CaptureFixture[str]):
    result = sweep(settings(parts), plan_only=True)
    assert result.outcomes == []
    assert find_runs() == []
    printed = capsys.readouterr().out
    assert "12 configurations, 12 to run" in printed
    assert [step.uses for step in result.plan.steps] == [12, 4, 4, 4, 4, 2, 2, 12]
    assert all(step.seconds is not None for step in result.plan.steps)
    with pytest.raises(InputError, match="no folder"):
        sweep(settings(parts / "nowhere"), plan_only=True)


@pytest.mark.row("S.8")
def test_an_interrupted_sweep_goes_on_and_ends_in_the_same_workbook(
    done: Any, parts: Path, monkeypatch: pytest.MonkeyPatch
):
    grid = [{**GRID[0], "model.layers": [LAYERS[0]]}]
    real, written = execute.write_run, []

    def write(*given: Any) -> Run:
        if len(written) in (1, 3):
            written.append("interrupted")
            raise KeyboardInterrupt
        written.append("run")
        return real(*given)

    monkeypatch.setattr(execute, "write_run", write)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sweep(settings(parts, grid=grid))
    monkeypatch.setattr(patchcore, "nearest_of_prefixes", lambda *_: pytest.fail("searched again"))
    result = sweep(settings(parts, grid=grid))
    assert written.count("run") == 4
    assert not result.failed

    ours = comparable_rows(read_workbook(), seconds=True)
    theirs = [row for row in done[2] if row["run_id"] in {one["run_id"] for one in ours}]
    assert ours == comparable_rows(theirs, seconds=True)
    assert len(ours) == 4


def test_files_are_expanded_and_overrides_win():
    data = {"data": {"root": "d"}, "seeds": "0..1", "grid": {
        "model.name": "padim", "model.layers": ["layer1", "layer2"],
        "model.n_features": {"from": 50, "to": 150, "step": 50},
    }}  # fmt: skip
    experiments = list(SweepConfig.from_dict(data).expanded())
    assert [(one["model"]["n_features"], one["seed"]) for one in experiments] == [
        (n, seed) for n in (50, 100, 150) for seed in (0, 1)
    ]
    assert {tuple(one["model"]["layers"]) for one in experiments} == {("layer1", "layer2")}
    assert {one["data"]["seed"] for one in experiments} == {0}
    changed = with_overrides({**data, "grid": [data["grid"]]}, {"model.n_features": 7, "data.root": ["a", "b"]})
    left = list(SweepConfig.from_dict(changed).expanded())
    assert {(one["model"]["n_features"], one["data"]["root"]) for one in left} == {(7, "a"), (7, "b")}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"gird": []}, "Did you mean 'grid'"),
        ({"grid": [{"num_neighbors": [1]}]}, "dotted name"),
        ({"grid": [{"model.name": "padin"}]}, "Did you mean 'padim'"),
        ({"grid": [{"model.name": "padim", "model.n_features": []}]}, "at least one value"),
        ({"grid": [{"model.name": "padim", "model.n_features": {"from": 1, "to": 5}}]}, "step"),
        ({"seed": 1, "seeds": [1]}, "not both"),
        ({"datasets": {"categories": "all"}}, "needs root"),
        ({"datasets": {"root": "d"}, "data": {"root": "d", "categories": "all"}}, "give one"),
    ],
)
def test_what_cannot_work_is_refused_by_name(broken: dict[str, Any], message: str):
    base = {"data": {"root": "d"}, "model": {"name": "padim"}}
    with pytest.raises(OptionError, match=message):
        SweepConfig.from_dict(base | broken)


@pytest.mark.row("4.4")
def test_categories_come_in_groups_and_have_mean_rows(tmp_path: Path):
    for name in ("bottle", "cable", "wood", "tile", "other"):
        (tmp_path / name / "train/good").mkdir(parents=True)
    data = {"model": {"name": "padim"}, "datasets": {"root": str(tmp_path), "categories": "all"}}
    assert list(SweepConfig.from_dict(data).roots()) == ["bottle", "cable", "other", "tile", "wood"]
    mine = data | {"groups": {"mine": ["wood", "other"]}, "datasets": {"root": str(tmp_path), "categories": "mine"}}
    assert list(SweepConfig.from_dict(mine).roots()) == ["wood", "other"]
    with pytest.raises(DataError, match="Unknown category 'woood'"):
        SweepConfig.from_dict(data | {"datasets": {"root": str(tmp_path), "categories": ["woood"]}}).roots()
    outcomes = [
        Outcome(n, "P", name, 42, "finished", {}, {"image_AUROC": value, "pixel_AUROC": None})
        for n, (name, value) in enumerate([("bottle", 0.5), ("tile", 0.7), ("wood", 0.9)])
    ]
    rows = {row.over: row.metrics for row in mean_rows(outcomes, {"textures": ["tile", "wood", "grid"]})}
    assert rows["mean of all: 3 datasets"]["image_AUROC"] == pytest.approx(0.7)
    assert rows["mean of textures: 2 datasets"]["image_AUROC"] == pytest.approx(0.8)
    assert rows["mean of all: 3 datasets"]["pixel_AUROC"] is None
    outcomes[2].status = "failed"
    assert list(mean_rows(outcomes, {})) == []


@pytest.mark.row("S.5")
def test_what_shared_work_does_not_know_is_trained_alone(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """AnomalyDINO's options beside a plain PatchCore: none is ignored, and numbers are those of single runs."""
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path / "home"))
    plain = {"model.name": "patchcore", "model.layers": [["layer2"]], "model.num_neighbors": [1]}
    more: dict[str, Any] = {
        "model.coreset_sampling_ratio": [1.0],
        "model.rotations": [4],
        "model.distance": ["cosine"],
        "model.neighbourhood": [1],
        "model.top_share": [0.05],
        "model.foreground_mask": [True],
    }
    result = sweep(settings(parts, grid=[plain, plain | more], checkpoints="all"))
    assert [one.status for one in result.outcomes] == ["finished"] * 2
    usual, own = (Run.open(tmp_path / "home" / one.record) for one in result.outcomes)
    alone = _single(own, tmp_path / "alone")
    assert own.record.run_id == alone.record.run_id != usual.record.run_id
    for key, (value,) in more.items():
        assert own.record.experiment.model[key.removeprefix("model.")] == value
        assert key == "model.coreset_sampling_ratio" or key.removeprefix("model.") not in usual.record.experiment.model
    ours, theirs = ([row.score for row in one.scores("test")] for one in (own, alone))
    assert ours == pytest.approx(theirs, rel=1e-5)
    np.testing.assert_allclose(own.maps("test"), alone.maps("test"), rtol=1e-4, atol=1e-6)
    assert own.record.notes == alone.record.notes
    bank = len(restore(own.checkpoint).model.memory_bank)
    assert bank == 4 * 64 * len(Manifest.read(own.folder / "manifest.json").split("train"))  # no mask holds an object


@pytest.mark.row("S.5")
def test_a_top_share_alone_is_not_lost_in_shared_work(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path / "home"))
    grid = {"model.name": "patchcore", "model.layers": [["layer2"]], "model.num_neighbors": [1]}
    result = sweep(settings(parts, grid=[grid, grid | {"model.top_share": [0.2]}]))
    usual, own = (Run.open(tmp_path / "home" / one.record) for one in result.outcomes)
    alone = _single(own, tmp_path / "alone")
    ours, theirs, others = ([row.score for row in one.scores("test")] for one in (own, alone, usual))
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert all(share < highest for share, highest in zip(ours, others, strict=True))


def test_layers_of_a_transformer_share_one_extraction(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path / "home"))
    passes: list[list[str]] = []
    compute = extracting._compute
    monkeypatch.setattr(extracting, "_compute", lambda *a: (passes.append(sorted(a[3])), compute(*a)))
    grid = [
        {"model.name": "patchcore", "model.layers": [["blocks.0"], ["blocks.0+blocks.2"]], "model.num_neighbors": [1]},
        {"model.name": "padim", "model.layers": [["blocks.0", "blocks.1"]], "model.n_features": [20]},
    ]
    vit = {"name": "vit_tiny_patch16_224", "weights": "random"}
    result = sweep(settings(parts, grid=grid, backbone=vit))
    assert [one.status for one in result.outcomes] == ["finished"] * 3
    assert passes == [["blocks.0", "blocks.0+blocks.2", "blocks.1"]]
    own = Run.open(tmp_path / "home" / result.outcomes[1].record)
    config = own.record.experiment.to_dict()
    alone = run(
        Experiment.from_dict(
            {
                **{key: value for key, value in config.items() if key != "name"},
                "model": {key: value for key, value in config["model"].items() if key != "center_crop"},
                "trainer": {"accelerator": "cpu", "default_root_dir": str(tmp_path / "alone")},
                "backbone": vit,
            }
        )
    )
    assert own.record.run_id == alone.record.run_id
    assert [row.score for row in own.scores("test")] == pytest.approx([row.score for row in alone.scores("test")])
