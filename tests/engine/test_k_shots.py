"""Fits with a few training images: drawn, fitted on features of one extraction, and equal to runs on these alone."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import data, small

import defectlab.backbones.feature_cache.extraction as extracting
import defectlab.engine.k_shots as k_shots
from defectlab import Engine
from defectlab.results.k_shots import read_fit_scores, write_fit_scores
from defectlab.results.run.k_shot_records import KShotRecord
from defectlab.results.run.run import Run, find_runs
from defectlab_runtime.errors import InputError, OptionError

NAMES = ("patchcore", "padim", "subspace", "masked")
MODELS = {
    "masked": lambda _: small("patchcore", foreground_mask=True, top_share=0.1, num_neighbors=1),
    "rotated": lambda _: small("patchcore", rotations=2),
}
ASKED = [2, 4, "all"]


def train(name: str, root: Path, results: Path, **options: Any) -> Run:
    model = MODELS.get(name, small)(name)
    Engine(default_root_dir=results, enable_progress_bar=False).train(model=model, datamodule=data(root, **options))
    return Run.open(model.run_folder or "")


@pytest.fixture(scope="module")
def studies(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Run], list[Any]]:
    """A run with its few fits of each model, and the extractions that these took; read only."""
    home = tmp_path_factory.mktemp("k_shots")
    passes: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTLAB_HOME", str(home))
        compute = extracting._compute
        patch.setattr(extracting, "_compute", lambda *a: (passes.append(sorted(a[3])), compute(*a)))
        runs = {name: train(name, parts, home / "results", k_shots=ASKED, k_shot_draws=3) for name in NAMES}
    return runs, passes


def fits_of(run: Run) -> list[KShotRecord]:
    assert run.record.k_shots is not None
    return run.record.k_shots.fits


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_drawn_and_all_is_the_run_itself(studies: Any, name: str):
    runs, passes = studies
    run = runs[name]
    fits = fits_of(run)
    assert sorted(fit.key for fit in fits) == [(k, draw, 42) for k in (2, 4) for draw in range(3)] + [(8, 0, 42)]
    for fit in fits:
        assert len(set(fit.images)) == (0 if fit.k == 8 else fit.k)
        assert all(path.startswith("train/good/") for path in fit.images)
    of = {(fit.k, fit.draw): fit.images for fit in fits}
    assert all(of[2, draw] == of[4, draw][:2] for draw in range(3))
    assert len({tuple(of[4, draw]) for draw in range(3)}) == 3
    whole = next(fit for fit in fits if fit.k == 8)
    assert whole.metrics["image_AUROC"] == run.record.metrics["image_AUROC"]
    assert whole.metrics["pixel_AUROC"] == run.record.metrics["pixel_AUROC"]
    scores = read_fit_scores(run)
    assert scores is not None
    assert scores.shape == (7, len(run.scores("test")))
    assert scores[fits.index(whole)].tolist() == [row.score for row in run.scores("test")]
    assert len(passes) == 2  # one of each set of layers


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("k", "draw"), [(2, 1), (4, 0)])
def test_a_fit_is_a_run_trained_on_its_images_alone(
    studies: Any, parts: Path, tmp_path: Path, name: str, k: int, draw: int
):
    run = studies[0][name]
    place, fit = next((at, fit) for at, fit in enumerate(fits_of(run)) if (fit.k, fit.draw) == (k, draw))
    alone = tmp_path / "alone"
    shutil.copytree(parts, alone)
    for path in (alone / "train/good").iterdir():
        if path.relative_to(alone).as_posix() not in fit.images:
            path.unlink()
    other = train(name, alone, tmp_path / "results")
    assert [row.image_path.split("/test/")[1] for row in other.scores("test")] == [
        row.image_path.split("/test/")[1] for row in run.scores("test")
    ]
    scores = read_fit_scores(run)
    assert scores is not None
    np.testing.assert_allclose(scores[place], [row.score for row in other.scores("test")], rtol=1e-5)
    for metric, value in fit.metrics.items():
        assert value == pytest.approx(other.record.metrics[metric], abs=1e-6), metric


def test_the_run_is_that_of_before_with_the_same_id(studies: Any, parts: Path, tmp_path: Path):
    plain = train("patchcore", parts, tmp_path)
    run = studies[0]["patchcore"]
    assert (run.record.run_id, run.record.facts, run.record.metrics) == (
        plain.record.run_id,
        plain.record.facts,
        plain.record.metrics,
    )
    assert plain.record.k_shots is None


def test_the_model_stays_as_it_was_fitted(parts: Path, tmp_path: Path):
    model = small("patchcore")
    engine = Engine(default_root_dir=tmp_path, enable_progress_bar=False)
    images = data(parts, k_shots=[1], k_shot_draws=1)
    engine.fit(model=model, datamodule=images)
    bank = model.model.memory_bank.clone()
    engine.test(model=model, datamodule=images)
    assert torch.equal(model.model.memory_bank, bank)
    assert len(fits_of(Run.open(model.run_folder or ""))) == 1


def test_a_killed_study_goes_on_after_its_last_fit(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class KilledError(BaseException):
        """Ends the study as Ctrl-C does."""

    made: list[Any] = []
    real = k_shots._Study._scores

    def scores(self: Any, *rest: Any) -> np.ndarray:
        if len(made) == 2:
            raise KilledError
        made.append(rest[2])
        return real(self, *rest)

    monkeypatch.setattr(k_shots._Study, "_scores", scores)
    with pytest.raises(KilledError):
        train("padim", parts, tmp_path, k_shots=[2, 4], k_shot_draws=2)
    (run,) = find_runs(tmp_path)
    assert run.status == "finished"
    first = fits_of(run)
    assert [fit.key for fit in first] == [(2, 0, 42), (2, 1, 42)]
    made.append(None)  # no third one to be killed at
    images = data(parts, k_shots=[2, 4], k_shot_draws=2)
    assert Engine().fit_few(small("padim"), images, run)
    run = Run.open(run.folder)
    assert [fit.key for fit in fits_of(run)] == [(2, 0, 42), (2, 1, 42), (4, 0, 42), (4, 1, 42)]
    assert fits_of(run)[:2] == first
    assert not Engine().fit_few(small("padim"), images, run)


def test_a_study_killed_between_scores_and_record_loses_that_fit_alone(
    parts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    run = train("padim", parts, tmp_path, k_shots=[2], k_shot_draws=2)
    first, scores = fits_of(run), read_fit_scores(run)
    assert scores is not None
    write_fit_scores(run, np.concatenate([scores, scores[:1] + 1]))
    assert Engine().fit_few(small("padim"), data(parts, k_shots=[2, 3], k_shot_draws=1), run)
    run = Run.open(run.folder)
    assert fits_of(run)[:2] == first
    assert [fit.key for fit in fits_of(run)] == [(2, 0, 42), (2, 1, 42), (3, 0, 42)]
    found = read_fit_scores(run)
    assert found is not None
    assert found[:2].tolist() == scores.tolist()
    assert found.shape == (3, len(run.scores("test")))
    assert "all are made again" not in caplog.text


def test_fits_whose_scores_are_gone_are_made_again(parts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = train("padim", parts, tmp_path, k_shots=[2], k_shot_draws=2)
    (run.folder / "k_shots.npy").unlink()
    with caplog.at_level(logging.WARNING):
        assert Engine().fit_few(small("padim"), data(parts, k_shots=[2, 3], k_shot_draws=1), run)
    assert "all are made again" in caplog.text
    assert [fit.key for fit in fits_of(Run.open(run.folder))] == [(2, 0, 42), (3, 0, 42)]


def test_one_image_has_no_covariance_and_is_left_out_with_the_reason(
    parts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    run = train("padim", parts, tmp_path, k_shots=[1, 2], k_shot_draws=1)
    assert [fit.k for fit in fits_of(run)] == [2]
    assert run.record.k_shots is not None
    assert "at least 2 training images" in run.record.k_shots.left_out["1"]
    assert "fits with 1 training images are left out: PaDiM needs at least 2" in caplog.text


def test_images_that_allow_no_fit_have_the_reason_and_stop_no_other(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, made = k_shots._Study._scores, []

    def scores(self: Any, *rest: Any) -> np.ndarray:
        made.append(rest[2])
        if len(made) == 1:
            raise InputError("these two are alike")
        return real(self, *rest)

    monkeypatch.setattr(k_shots._Study, "_scores", scores)
    run = train("padim", parts, tmp_path, k_shots=[2], k_shot_draws=2)
    first, second = fits_of(run)
    assert first.metrics["image_AUROC"] is None
    assert first.metric_reasons["image_AUROC"] == "these two are alike"
    assert second.metrics["image_AUROC"] is not None
    found = read_fit_scores(run)
    assert found is not None
    assert np.isnan(found).all(axis=1).tolist() == [True, False]


@pytest.mark.parametrize("size", ["original", [48, 48]])
def test_pixels_are_measured_on_the_grid_of_the_run(parts: Path, tmp_path: Path, size: Any):
    model = small("patchcore")
    engine = Engine(default_root_dir=tmp_path, pixel_size=size, keep_maps="none", enable_progress_bar=False)
    engine.train(model=model, datamodule=data(parts, k_shots=[7, "all"], k_shot_draws=1))
    run = Run.open(model.run_folder or "")
    seven = next(fit for fit in fits_of(run) if fit.k == 7)
    assert seven.metrics["pixel_AUROC"] == pytest.approx(run.record.metrics["pixel_AUROC"], abs=0.05)
    assert seven.metrics["pixel_AUPRO"] is not None


def test_without_masks_pixel_metrics_have_a_reason(tmp_path: Path):
    run = train("patchcore", make_parts(tmp_path / "plain", masks=False), tmp_path, k_shots=[2], k_shot_draws=1)
    (fit,) = fits_of(run)
    assert fit.metrics["pixel_AUROC"] is None
    assert fit.metric_reasons["pixel_AUROC"] == "there are no masks"
    assert fit.metrics["image_AUROC"] is not None


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("patchcore", {"k_shots": [2, 9]}, "k_shots asks for 9 good images, and there are 8 to train with"),
        ("cflow", {"k_shots": [2]}, "Cflow: data.k_shots is for models that are fitted once"),
        ("rotated", {"k_shots": [2]}, "leave rotations out, or k_shots"),
        ("padim", {"k_shots": [1]}, "none of the numbers in k_shots can work. PaDiM needs at least 2"),
        ("padim", {"k_shots": [2], "test_split_mode": "none", "val_split_mode": "none"}, "not both good and anomalous"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    parts: Path, tmp_path: Path, name: str, options: dict[str, Any], words: str
):
    with pytest.raises(OptionError) as refused:
        train(name, parts, tmp_path, **options)
    assert words in str(refused.value)
    assert not find_runs(tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "must be a list of whole numbers"),
        ("all", "must be a list of whole numbers"),
        ([0], "must be a list of whole numbers"),
        ([True], "must be a list of whole numbers"),
        ([1.5], "must be a list of whole numbers"),
        (["some"], "such as [1, 2, 4, 8, 16, all], got ['some']"),
    ],
)
def test_numbers_that_are_none(parts: Path, given: Any, words: str):
    with pytest.raises(OptionError) as refused:
        data(parts, k_shots=given)
    assert words in str(refused.value)


def test_options_that_change_images_are_refused(parts: Path):
    with pytest.raises(OptionError, match="leave augment out, or k_shots"):
        data(parts, k_shots=[1], augment={"hflip": 0.5})
    with pytest.raises(OptionError, match="leave tiling out, or k_shots"):
        data(parts, k_shots=[1], tiling={"image_size": [128, 128], "overlap": 0.25})
    with pytest.raises(OptionError, match=r"data\.categories names several"):
        data(parts, k_shots=[1], categories=["a", "b"])
    assert data(parts, k_shots=["all", 3, 3, 1]).settings.k_shots == [1, 3, "all"]
