"""Curves of a run's fits with a few images, as its record has them."""

from pathlib import Path

import numpy as np
import pytest
from helpers.runs import finished, with_k_shots

from defectlab.results.k_shots import k_shot_curves, read_fit_scores, write_fit_scores
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError


def test_curves_are_read_from_the_record():
    run = Run.open(with_k_shots(finished("a"), {2: (0.8, 0.9), 8: (0.951, 0.95), 100: (0.95, 0.96)}).folder)
    curves = k_shot_curves(run)
    assert list(curves) == ["image_AUROC", "pixel_AUROC"]
    assert [(point.k, point.draws) for point in curves["image_AUROC"].points] == [(2, 4), (8, 4), (100, 1)]
    assert curves["image_AUROC"].points[0].mean == pytest.approx(0.7995)
    assert curves["image_AUROC"].enough == 8
    assert curves["pixel_AUROC"].enough is None
    assert "still rises at its end" in curves["pixel_AUROC"].reading


def test_a_run_of_before_has_none():
    assert k_shot_curves(finished("a")) == {}
    assert read_fit_scores(finished("a")) is None


def test_pixels_without_masks_are_no_curve():
    run = with_k_shots(finished("a"), {2: (0.8, 0.9), 100: (0.9, 0.9)})
    assert run.record.k_shots is not None
    fits = [fit.replaced(metrics={**fit.metrics, "pixel_AUROC": None}) for fit in run.record.k_shots.fits]
    run.update(k_shots=run.record.k_shots.replaced(fits=fits))
    assert list(k_shot_curves(run)) == ["image_AUROC"]


def test_fits_that_go_with_a_replaced_run_are_named(caplog: pytest.LogCaptureFixture):
    with_k_shots(finished("a"), {2: (0.8, 0.9)})
    again = finished("a")
    assert again.record.k_shots is None
    assert "fits with a few images are gone with it: data.k_shots makes them again" in caplog.text
    caplog.clear()
    finished("a")
    assert not caplog.text


def test_scores_keep_every_digit(tmp_path: Path):
    run = finished("a")
    scores = np.random.default_rng(0).normal(size=(3, 5))
    write_fit_scores(run, scores)
    read = read_fit_scores(run)
    assert read is not None
    assert np.array_equal(read, scores)
    (run.folder / "k_shots.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="damaged"):
        read_fit_scores(run)
