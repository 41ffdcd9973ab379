"""Search: trials drawn from a space, judged by validation images alone, taken up again where they were ended."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import make_parts

import defectlab.sweeps.execute as execute
import defectlab.sweeps.patchcore as patchcore
import defectlab.sweeps.record_scores as scored
from defectlab.engine.split_writer import SplitWriter
from defectlab.results.calibration import choices_of
from defectlab.results.run.run import Run, find_runs
from defectlab.sweeps.search.trials import ranked
from defectlab.sweeps.selection import objective_value
from defectlab.sweeps.sweep import sweep
from defectlab_runtime.errors import DataError, InputError

SPACE = [
    {
        "model.name": "patchcore",
        "model.layers": [["layer2"], ["layer2", "layer3"]],
        "model.coreset_sampling_ratio": {"from": 0.05, "to": 0.3, "log": True},
        "model.num_neighbors": {"from": 1, "to": 5, "step": 2},
    },
    {"model.name": "padim", "model.layers": [["layer1", "layer2"]], "model.n_features": [7, 20, 9999]},
]


def settings(root: Path, **search: Any) -> dict[str, Any]:
    return {
        "name": "found",
        "data": {"root": str(root), "num_workers": 0, "train_batch_size": 3, "eval_batch_size": 4},
        "backbone": {"name": "resnet18", "weights": "random"},
        "model": {"image_size": [64, 64]},
        "trainer": {"accelerator": "cpu"},
        "grid": search.pop("grid", SPACE),
        "search": {"strategy": "optuna", "trials": 6, "seed": 3, **search},
    }


def plain(trials: Any) -> list[tuple[Any, ...]]:
    return [(one.number, one.state, one.value, one.values) for one in trials]


@pytest.fixture(scope="module")
def done(parts: Path, tmp_path_factory: pytest.TempPathFactory):
    """One search of six trials, never disturbed; read only."""
    home = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTLAB_HOME", str(home))
        orders: list[int] = []
        real = patchcore.nearest_of_prefixes
        patch.setattr(patchcore, "nearest_of_prefixes", lambda q, b, s, k: (orders.append(len(b)), real(q, b, s, k))[1])
        result = sweep(settings(parts))
    return home, result, orders


def test_trials_are_records_judged_by_validation_images(done: Any, monkeypatch: pytest.MonkeyPatch):
    home, result, orders = done
    monkeypatch.setenv("DEFECTLAB_HOME", str(home))
    assert len(result.trials) == 6
    complete = [one for one in result.trials if one.state == "complete"]
    assert complete
    for trial in result.trials:
        if trial.state == "failed":
            assert "n_features must be 1 to" in (trial.error or "")
            continue
        run = Run.open(trial.outcomes[0].record)
        assert run.status == "finished"
        assert any(
            "in a search by image_AUROC" in one or "by image_AUROC of" in one for one in choices_of(run.record, 0)
        )
        rows = run.scores("validation")
        good = [row.score for row in rows if row.label == 0]
        bad = [row.score for row in rows if row.label == 1]
        wins = np.mean([(b > g) + 0.5 * (b == g) for b in bad for g in good])
        assert trial.value == pytest.approx(float(wins))
    assert ranked(result.trials, True)[0].value == max(one.value for one in complete)
    # every search goes through the bank of the largest ratio there is, for trials to come share its order
    images = sum(
        entry["split"] == "train" for entry in json.loads((run.folder / "manifest.json").read_text())["entries"]
    )
    assert set(orders) == {int(0.3 * images * 8 * 8)}
    with (result.folder / "trials.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in table] == list(range(6))
    assert {row["state"] for row in table} == {one.state for one in result.trials}


def test_a_search_called_again_computes_nothing(done: Any, parts: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEFECTLAB_HOME", str(done[0]))
    monkeypatch.setattr(execute, "write_run", lambda *_: pytest.fail("done again"))
    again = sweep(settings(parts))
    assert plain(again.trials) == plain(done[1].trials)
    assert {one.status for one in again.outcomes} <= {"kept", "refused"}
    with pytest.raises(InputError, match="of another search"):
        sweep(settings(parts, objective="image_AUPR"))


@pytest.mark.row("0.17")
def test_an_interrupted_search_ends_in_the_trials_of_an_undisturbed_one(
    done: Any, parts: Path, own_project: Path, monkeypatch: pytest.MonkeyPatch
):
    real, calls = execute.write_run, []

    def write(*given: Any) -> Run:
        calls.append(1)
        if len(calls) in (2, 4):
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(execute, "write_run", write)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sweep(settings(parts))
        with (own_project / "results/sweeps/found/study.journal").open("ab") as journal:
            journal.write(b'{"op_code": 4, "worker_')  # what SIGKILL in the middle of a write leaves
    assert plain(sweep(settings(parts)).trials) == plain(done[1].trials)


@pytest.mark.row("S.9")
def test_scores_of_test_images_never_reach_the_search(done: Any, parts: Path, monkeypatch: pytest.MonkeyPatch):
    real = SplitWriter.add

    def spoiled(self: SplitWriter, batch: Any) -> None:
        if self.split == "test":  # the opposite of what the model says
            batch.pred_score, batch.anomaly_map = -batch.pred_score, -batch.anomaly_map
        real(self, batch)

    monkeypatch.setattr(scored.SplitWriter, "add", spoiled)
    other = sweep(settings(parts))
    assert plain(other.trials) == plain(done[1].trials)
    metrics = [[one.metrics.get("image_AUROC") for one in found.outcomes] for found in (other, done[1])]
    assert metrics[0] != metrics[1]


@pytest.mark.parametrize(
    ("options", "objective", "message"),
    [
        ({"val_split_mode": "same_as_test"}, "image_AUROC", "are the test images"),
        ({"val_split_mode": "from_train"}, "image_AUROC", "0 anomalous"),
        ({"val_split_mode": "none"}, "image_AUROC", "0 good and 0 anomalous"),
    ],
)
def test_without_labelled_validation_images_a_search_is_refused(
    parts: Path, options: dict[str, Any], objective: str, message: str
):
    given = settings(parts, objective=objective)
    given["data"] |= options
    with pytest.raises(DataError, match=message) as refused:
        sweep(given)
    assert "never by test images" in str(refused.value)
    assert not find_runs()


def test_a_pixel_objective_needs_masks_and_is_that_of_the_validation_maps(done: Any, tmp_path: Path, monkeypatch: Any):
    with pytest.raises(DataError, match="no validation image has a mask"):
        sweep(settings(make_parts(tmp_path / "unmarked", masks=False), objective="pixel_AUROC"))
    monkeypatch.setenv("DEFECTLAB_HOME", str(done[0]))
    run = next(Run.open(one.record) for one in done[1].outcomes if one.record)
    maps, masks = run.maps("validation"), run.masks("validation")
    order = np.argsort(maps.ravel(), kind="stable")
    ranks = np.empty(order.size)
    ranks[order] = np.arange(1, order.size + 1)
    bad = masks.ravel()
    wanted = (ranks[bad].sum() - bad.sum() * (bad.sum() + 1) / 2) / (bad.sum() * (~bad).sum())
    assert objective_value([run], "pixel_AUROC").value == pytest.approx(wanted, abs=1e-6)


def test_equal_trials_are_computed_once(parts: Path, monkeypatch: pytest.MonkeyPatch):
    written = []
    real = execute.write_run
    monkeypatch.setattr(execute, "write_run", lambda *given: (written.append(1), real(*given))[1])
    grid = [{"model.name": "padim", "model.layers": [["layer2"]], "model.n_features": [5, 9]}]
    result = sweep(settings(parts, grid=grid, trials=5, strategy="random"))
    assert len(result.trials) == 5
    assert len(written) == len({one.values["model.n_features"] for one in result.trials})
    longer = sweep(settings(parts, grid=grid, trials=6, strategy="random"))
    assert plain(longer.trials[:5]) == plain(result.trials)


def test_a_failure_is_told_and_tried_again_on_request(parts: Path, monkeypatch: pytest.MonkeyPatch):
    grid = [{"model.name": "padim", "model.layers": [["layer2"]], "model.n_features": [5]}]
    monkeypatch.setattr(execute, "SCORERS", {"padim": lambda *_: 1 / 0})
    first = sweep(settings(parts, grid=grid, trials=2))
    assert [one.state for one in first.trials] == ["failed", "failed"]
    assert "ZeroDivisionError" in (first.trials[0].error or "")
    monkeypatch.undo()
    monkeypatch.setenv("DEFECTLAB_HOME", str(first.folder.parents[2]))
    again = sweep(settings(parts, grid=grid, trials=2), retry_failed=True)
    assert [one.state for one in again.trials] == ["failed", "failed", "complete", "complete"]


@pytest.mark.row("S.9")
def test_trainings_worse_than_the_median_are_ended(parts: Path, monkeypatch: pytest.MonkeyPatch):
    grid = [{"model.name": "small_conv_vae", "model.latent_dim": [4], "model.lr": [1e-3, 2e-3, 4e-3]}]
    given = settings(parts, grid=grid, trials=3, batch=1, pruning={"startup_trials": 1})
    given["trainer"] |= {"max_epochs": 3, "logger": False}
    given["model"], given["backbone"] = {"image_size": [16, 16]}, None
    values = iter([0.9, 0.9, 0.9, 0.1, 0.95, 0.95, 0.95])
    import defectlab.sweeps.search.pruning as pruning
    from defectlab.evaluation.metrics import Metric

    monkeypatch.setattr(pruning, "validation_metric", lambda *_: Metric(next(values)))
    result = sweep(given)
    assert [one.state for one in result.trials][:2] == ["complete", "pruned"]
    assert "ended after epoch 1 of 3" in (result.trials[1].error or "")
    run = next(one for one in find_runs() if one.status == "failed")
    assert "PrunedTrialError" in run.record.error.summary
    assert not result.failed


@pytest.mark.parametrize("strategy", ["optuna", "random"])
def test_optuna_is_named_where_it_is_missing_and_only_a_search_needs_it(
    parts: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"defectlab\[search\]"):
        sweep(settings(parts, strategy=strategy))
    grid = [{"model.name": "padim", "model.layers": [["layer2"]], "model.n_features": [5]}]
    given = {key: value for key, value in settings(parts, grid=grid).items() if key != "search"}
    assert len(sweep(given, plan_only=True).plan.pending) == 1
