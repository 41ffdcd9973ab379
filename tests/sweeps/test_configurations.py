"""What could make a sweep's records wrong, lose them or call them by another's name."""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import data
from helpers.sweeps import settings
from PIL import Image

import defectlab.sweeps.execute as execute
import defectlab.sweeps.result as concluding
import defectlab.sweeps.table as table
from defectlab import load_backbone
from defectlab.backbones.feature_cache.extraction import extract
from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.data.manifest.manifest import check_unchanged
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.engine.engine import Engine
from defectlab.results.run.run import Run, find_runs
from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.configurations import Configuration, earlier_runs, prepare
from defectlab.sweeps.execute import outcome_of
from defectlab.sweeps.executors.local import LocalExecutor
from defectlab.sweeps.sweep import sweep
from defectlab.sweeps.table import mean_rows
from defectlab_runtime.errors import DataError, InputError

PADIM = {"model.name": "padim", "model.layers": [["layer2"]], "model.n_features": [5]}


def built(root: Path, *grid: dict[str, Any], **more: Any) -> list[Configuration]:
    """The configurations of a sweep, before anything is computed."""
    return prepare(SweepConfig.from_dict(settings(root, grid=list(grid or (PADIM,)), **more)).expanded())[0]


@pytest.fixture(scope="module")
def done(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one finished configuration; read only."""
    home = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTLAB_HOME", str(home))
        assert not sweep(settings(parts, grid=[PADIM])).failed
    return home


@pytest.fixture
def copy(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of a copy of that project."""
    shutil.copytree(done, tmp_path / "copy")
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path / "copy"))
    return find_runs()[0]


@pytest.mark.row("R.1")
def test_numbers_of_rounded_features_are_not_taken_for_exact_ones(copy: Run, parts: Path):
    (one,) = built(parts)
    assert earlier_runs([one])[one.run_id].folder == copy.folder
    assert one.engine.finished_run(one.model, one.datamodule) is not None
    copy.update(sweep=copy.record.sweep.replaced(cache_dtype="float16"))
    assert earlier_runs([one]) == {}
    assert one.engine.finished_run(one.model, one.datamodule) is None
    assert one.run_id in earlier_runs([one], "float16")
    (outcome,) = sweep(settings(parts, grid=[PADIM])).outcomes
    assert outcome.status == "finished", "it is computed anew, and takes the rounded one's place"
    assert find_runs()[0].record.sweep.cache_dtype == "float32"


@pytest.mark.row("S.5", "R.2")
@pytest.mark.parametrize(
    ("more", "shared"),
    [
        ({}, True),
        ({"trainer.keep_maps": "none"}, True),
        ({"trainer.limit_train_batches": 1}, False),
        ({"trainer.overfit_batches": 1}, False),
        ({"data.augment": {"choices": [{"hflip": 0.5}]}}, False),
        ({"data.tiling": {"choices": [{"image_size": [96, 96]}]}}, False),
        ({"model.name": "patchcore", "model.bank_sampling": "random"}, False),
        ({"model.name": "patchcore", "model.precision": "float16"}, False),
        ({"model.name": "patchcore", "model.num_neighbors": 1, "model.top_share": 0.05}, False),
        ({"model.name": "patchcore", "model.rotations": 2}, False),
        ({"model.name": "patchcore", "model.distance": "cosine"}, False),
        ({"model.name": "patchcore", "model.neighbourhood": 1}, False),
        ({"model.name": "patchcore", "model.foreground_mask": True}, False),
        ({"model.name": "patchcore", "model.score_computation": "amazon"}, False),
        ({"model.name": "subspace", "model.top_share": 0.05, "model.n_components": 3}, True),
        ({"model.name": "subspace", "model.rotations": 2}, False),
    ],
)
def test_what_shared_work_would_not_do_as_asked_is_trained_alone(parts: Path, more: dict[str, Any], shared: bool):
    grid = {**PADIM, **more}
    if "model.name" in more:
        del grid["model.n_features"]
    (one,) = built(parts, grid)
    assert one.shares == one.takes_features == shared


@pytest.mark.row("R.16")
def test_an_option_that_sweeps_do_not_know_of_is_trained_alone(parts: Path):
    (one,) = built(parts)
    one.model.options["scoring"] = "another"
    assert not one.shares
    featcae = {"model.name": "featcae", "model.layers": [["layer1"]], "model.latent_dim": 4, "model.border": 1}
    assert built(parts, featcae)[0].takes_features
    assert not built(parts, {**featcae, "data.tiling": {"image_size": [96, 96]}})[0].takes_features


@pytest.mark.row("R.3")
def test_images_that_change_before_they_are_read_are_refused(parts: Path, tmp_path: Path):
    root = tmp_path / "parts"
    shutil.copytree(parts, root)
    folder, store = data(root), FeatureStore(tmp_path / "cache")
    manifest, image, mask = folder.manifest, root / "train/good/000.png", root / "ground_truth/blot/000_mask.png"
    check_unchanged(manifest)
    state, before = image.stat(), image.read_bytes()
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(image)
    network = load_backbone("resnet18", weights="random")
    with pytest.raises(DataError, match=r"train/good/000\.png"):
        extract(folder, network, Preprocessing(size=(64, 64)), ["layer1"], store)
    assert store.entries() == [], "features of one image under another's name"
    image.write_bytes(before)
    check_unchanged(manifest)
    image.write_bytes(bytes(len(before)))
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))  # as a copy that keeps the date leaves it
    with pytest.raises(DataError, match=r"000\.png"):
        check_unchanged(manifest)
    image.unlink()
    check_unchanged(manifest)
    Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(mask)
    with pytest.raises(DataError, match=r"000_mask\.png"):
        check_unchanged(manifest)


@pytest.mark.row("R.3")
def test_a_run_whose_images_change_is_not_finished(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "parts"
    shutil.copytree(parts, root)
    real = execute.write_run

    def write(*given: Any) -> Run:
        Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(root / "test/good/000.png")
        return real(*given)

    monkeypatch.setattr(execute, "write_run", write)
    (outcome,) = sweep(settings(root, grid=[PADIM])).outcomes
    assert outcome.status == "failed"
    assert "have changed since" in (outcome.error or "")
    assert [one.status for one in find_runs()] == ["failed"]


@pytest.mark.row("R.14")
def test_what_a_finished_run_lacks_is_computed(copy: Run, parts: Path):
    (one,) = built(parts, evaluation={"aupimo": True})
    assert one.run_id == copy.record.run_id
    assert earlier_runs([one]) == {}
    assert one.engine.finished_run(one.model, one.datamodule) is None
    copy.update(metrics=copy.record.metrics | {"pixel_AUPIMO": 0.5})
    assert one.run_id in earlier_runs([one])


@pytest.mark.row("R.15")
def test_images_that_have_moved_are_known_when_a_checkpoint_is_made(copy: Run, parts: Path, tmp_path: Path):
    shutil.copytree(parts, tmp_path / "elsewhere/parts")
    result = sweep(settings(tmp_path / "elsewhere/parts", grid=[PADIM]), refit=["BEST"])
    assert [one.status for one in result.outcomes] == ["kept"]
    assert not result.checkpoints.problems
    assert copy.checkpoint.is_file()


@pytest.mark.row("R.8")
def test_nothing_that_a_person_did_to_the_workbook_ends_a_sweep(
    parts: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken() -> None:
        raise KeyError("a sheet that nobody expects")

    def full(*_: Any) -> Path:
        raise PermissionError("table.csv is open in another program")

    monkeypatch.setattr(table, "update_workbook", broken)
    monkeypatch.setattr(concluding, "write_outcomes", full)
    caplog.set_level(logging.ERROR, "defectlab")
    result = sweep(settings(parts, grid=[PADIM]))
    assert [one.status for one in result.outcomes] == ["finished"]
    assert len(find_runs()) == 1
    assert "run `defectlab compare`" in caplog.text
    assert "open in another program" in caplog.text


@pytest.mark.row("R.6")
def test_a_failure_that_cannot_be_recorded_stops_no_other(parts: Path, monkeypatch: pytest.MonkeyPatch):
    begin = Engine.begin

    def full(self: Engine, model: Any, datamodule: Any) -> Run:
        if model.model_name == "patchcore":
            raise OSError(28, "No space left on device")
        return begin(self, model, datamodule)

    monkeypatch.setattr(Engine, "begin", full)
    monkeypatch.setattr(execute, "SCORERS", {**execute.SCORERS, "patchcore": lambda *_: 1 / 0})
    patchcore = {"model.name": "patchcore", "model.layers": [["layer2"]]}
    result = sweep(settings(parts, grid=[patchcore, PADIM]))
    assert [one.status for one in result.outcomes] == ["failed", "finished"]
    assert "ZeroDivisionError" in (result.outcomes[0].error or "")


@pytest.mark.row("R.9")
def test_results_that_cannot_be_written_are_refused_before_anything_is_computed(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DEFECTLAB_RESULTS", str(tmp_path / "file/results"))
    monkeypatch.setattr(LocalExecutor, "run", lambda *_: pytest.fail("computed"))
    with pytest.raises(InputError, match="DEFECTLAB_RESULTS"):
        sweep(settings(parts, grid=[PADIM]))
    (one,) = built(parts)
    with pytest.raises(InputError, match="DEFECTLAB_RESULTS"):
        one.engine.begin(one.model, one.datamodule)
    monkeypatch.delenv("DEFECTLAB_RESULTS")
    monkeypatch.setenv("DEFECTLAB_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(InputError, match="DEFECTLAB_CACHE"):
        sweep(settings(parts, grid=[PADIM]))
    with pytest.raises(InputError, match="DEFECTLAB_CACHE"), FeatureStore().locked({"n": 1}):
        pass


@pytest.mark.row("R.13")
def test_one_folder_under_two_names_is_said_not_left_out(parts: Path, tmp_path: Path):
    for name in ("one", "two"):
        shutil.copytree(parts, tmp_path / "shelf" / name)
    given = settings(parts, grid=[PADIM], datasets={"root": str(tmp_path / "shelf")})
    del given["data"]["root"]
    ready, refused = prepare(SweepConfig.from_dict(given).expanded())
    assert [one.datamodule.name for one in ready] == ["one"]
    assert "are those of one" in refused[0].error
    same = [{**PADIM, "model.image_size": [64, [64, 64]]}]
    ready, refused = prepare(SweepConfig.from_dict(settings(parts, grid=same, model={})).expanded())
    assert (len(ready), refused) == (1, []), "one size, written twice"


@pytest.mark.row("R.19")
def test_folders_with_blanks_and_letters_of_any_kind(tmp_path: Path):
    root = make_parts(tmp_path / "Flaschen (neu) #1 %20 [x]" / "a\u0308 ö")  # the first as macOS writes it
    given = settings(root, grid=[PADIM])
    (outcome,) = sweep(given).outcomes
    assert outcome.status == "finished"
    assert {Path(row.image_path).parts[-4] for row in find_runs()[0].scores()} == {"a\u0308 ö"}
    assert sweep(given).outcomes[0].status == "kept"


@pytest.mark.row("R.17")
def test_a_mean_is_of_one_configuration_on_all_datasets(parts: Path, tmp_path: Path):
    shutil.copytree(parts, tmp_path / "other")
    make_parts(tmp_path / "other", train=9)
    outcomes = []
    for root in (parts, tmp_path / "other"):
        for one in built(root, {**PADIM, "data.val_split_ratio": [0.3, 0.5], "data.seed": [hash(root) % 100]}):
            outcomes.append(replace(outcome_of(one, "finished"), metrics={"image_AUROC": len(outcomes) / 10}))
    assert len({str(one.settings) for one in outcomes}) == 2
    rows = mean_rows(outcomes, {})
    assert [row.metrics["image_AUROC"] for row in rows] == pytest.approx([0.1, 0.2])


@pytest.mark.row("R.4")
def test_a_search_does_not_go_on_with_other_weights(parts: Path, tmp_path: Path):
    pytest.importorskip("optuna")
    from defectlab.sweeps.search.runner import SearchRunner
    from defectlab.sweeps.search.study import open_study

    def study(seed: int) -> Callable[[], None]:
        network = load_backbone("resnet18", weights="random", seed=seed)
        torch.save(network.network.state_dict(), tmp_path / "resnet18.pth")
        given = settings(parts, grid=[PADIM], search={"trials": 2})
        given["backbone"]["weights"] = str(tmp_path / "resnet18.pth")
        config = SweepConfig.from_dict(given)
        assert config.search is not None
        search = SearchRunner(config, config.search, None, None)  # type: ignore[arg-type]
        search.check()
        assert len(search.weights) == 1

        def opened() -> None:
            with open_study(tmp_path, config.search, config.grid, search.identity, search.weights):  # type: ignore
                pass

        return opened

    study(1)()
    study(1)()
    with pytest.raises(InputError, match="other weights"):
        study(2)()
