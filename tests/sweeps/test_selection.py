"""Which of several runs is the best: by validation images alone."""

import logging
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.runs import finished
from sklearn.metrics import roc_auc_score

from defectlab.engine.best_epoch import monitored_value
from defectlab.results.run.run import Run
from defectlab.sweeps.checkpoints import best_runs
from defectlab.sweeps.selection import choose, validation_metric
from defectlab.utils import paths
from defectlab_runtime.errors import InputError
from defectlab_runtime.scores import ScoreRow


def _validated(name: str, scores: list[float], labels: list[int], **values: Any) -> Run:
    one = finished(name, **values)
    one.write_scores(
        [ScoreRow(f"{place}.png", "validation", "good", label, score, -1) for place, (score, label) in
         enumerate(zip(scores, labels, strict=True))]
    )  # fmt: skip
    return one


@pytest.mark.row("S.6")
def test_the_best_is_chosen_on_validation_images_alone(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "defectlab")
    worse = _validated("worse", [1, 3, 2, 4], [0, 0, 1, 1], metrics={"image_AUROC": 1.0})
    better = _validated("better", [1, 2, 3, 4], [0, 0, 1, 1], metrics={"image_AUROC": 0.1})
    assert validation_metric(worse, "image_AUROC").value == 0.75
    found = choose([worse, better], "image_AUROC")
    assert found is not None
    assert (found.run.folder, found.value, found.split, found.oracle) == (better.folder, 1.0, "validation", False)
    tied = choose([worse, better, _validated("same", [5, 6, 7, 8], [0, 0, 1, 1])], "image_AUROC")
    assert tied is not None
    assert tied.run.folder == better.folder
    assert choose([worse, better], "image_FPR_at_95TPR").run.folder == better.folder  # type: ignore[union-attr]
    with pytest.raises(InputError, match="no metric 'image_auc'"):
        choose([worse], "image_auc")
    good_only = [
        _validated(name, [1, 2], [0, 0], metrics={"image_AUROC": value}) for name, value in (("x", 0.4), ("y", 0.6))
    ]
    assert choose(good_only, "image_AUROC") is None
    assert best_runs(good_only, "image_AUROC", test_if_needed=False) == []
    (asked,) = best_runs(good_only, "image_AUROC", test_if_needed=True)
    assert (asked.run.folder.name, asked.split, asked.oracle) == ("y", "test", True)
    assert "TEST images" in caplog.text
    protocol = better.record.dataset.protocol.replaced(validation_is_test=True)
    better.update(dataset=better.record.dataset.replaced(protocol=protocol))
    assert validation_metric(better, "image_AUROC").value is None


def test_a_defect_without_a_mask_counts_for_images_and_not_for_pixels():
    one = _validated("left_out", [1, 2, 3, 4], [0, 0, 1, 1])
    maps, masks = np.zeros((4, 8, 8), np.float32), np.zeros((4, 8, 1), np.uint8)
    maps[2, 0], masks[2, 0] = 1.0, 255  # the marked row of the defect that has a mask, found without an error
    maps[3] = 9.0  # all of the one without a mask
    one.maps_path("validation").parent.mkdir()
    np.save(one.maps_path("validation"), maps)
    np.save(one.masks_path("validation"), masks)
    assert validation_metric(one, "pixel_AUROC").value < 1, "without a mask all its pixels would be good"
    one.update(dataset=one.record.dataset.replaced(without_mask=["3.png"]))
    assert validation_metric(one, "pixel_AUROC").value == 1
    assert validation_metric(one, "image_AUROC").value == 1
    assert monitored_value("pixel_AUROC", one, one.scores("validation")) == 1


def test_validation_maps_of_other_images_choose_nothing():
    one = _validated("damaged", [1, 2, 3, 4], [0, 0, 1, 1])
    one.maps_path("validation").parent.mkdir()
    np.save(one.maps_path("validation"), np.zeros((3, 8, 8), np.float32))
    np.save(one.masks_path("validation"), np.zeros((3, 8, 1), np.uint8))
    with pytest.raises(InputError, match="4 validation images, and there are 3 maps"):
        validation_metric(one, "pixel_AUROC")


def test_of_several_categories_a_metric_is_the_mean_over_them_and_never_pooled(both: Run):
    expected = []
    for name in ("bolt", "nut"):
        rows = [row for row in both.scores("validation") if row.category == name]
        expected.append(roc_auc_score([row.label for row in rows], [row.score for row in rows]))
    assert validation_metric(both, "image_AUROC").value == pytest.approx(np.mean(expected))
    assert monitored_value("image_AUROC", both, both.scores("validation")) == pytest.approx(np.mean(expected))
    # scores of one category above all of the other's: pooled they would lie apart
    shifted = [replace(row, score=row.score + 1000 * (row.category == "nut")) for row in both.scores()]
    copy = Run.open(shutil.copytree(both.folder, paths.results_dir() / "Patchcore/bolt+nut/copy"))
    copy.write_scores(shifted)
    assert validation_metric(copy, "image_AUROC").value == pytest.approx(np.mean(expected))
