"""A promise on new images holds on images that chose nothing; on others it is withdrawn, with what they chose."""

from typing import Any

import numpy as np
import pytest
from helpers.runs import finished

from defectlab.evaluation.threshold import RuleOptions
from defectlab.results.calibration import choices_of, choosing_rows, rows_for_rule, withdraw_recorded
from defectlab.results.rethreshold import set_threshold
from defectlab.results.run.run import Run
from defectlab.results.workbook_row import row_of
from defectlab.sweeps.selection import validation_metric
from defectlab_runtime.scores import ScoreRow

MONITOR = {
    "metric": "image_AUROC",
    "keep": "best",
    "patience": None,
    "best_epoch": 2,
    "best_value": 0.9,
    "stopped_after": None,
    "values": {"1": 0.8, "2": 0.9},
}
OPTIONS = RuleOptions(false_alarm_rate=0.2, recall=0.8)


@pytest.fixture
def run() -> Run:
    """A run of 20 good and 10 anomalous validation images."""
    run = finished("a", metrics={})
    random = np.random.default_rng(0)
    labels = [0] * 20 + [1] * 10
    run.write_scores([
        ScoreRow(f"data/coins/{n:02d}.png", "validation", "", label, float(random.normal(2 * label, 1)), -1)
        for n, label in enumerate(labels)
    ])  # fmt: skip
    run.update(maps={"kept": "none"}, status="fitted")
    return run


def hold_back(run: Run) -> list[ScoreRow]:
    """Hold back every second good image; return these."""
    rows = [row for row in run.scores("validation") if row.label == 0][::2]
    run.update(dataset=run.record.dataset.replaced(calibration=[row.image_path for row in rows]))
    return rows


def monitored(**changes: Any) -> dict[str, Any]:
    return {"monitor": MONITOR | changes}


def test_without_a_choice_the_promise_is_made(run: Run):
    found = set_threshold(run, "conformal", OPTIONS, ["image"])["image"]
    assert found.withdrawn is None
    assert "probability of at most 0.2" in run.record.thresholds.image.reason
    assert "withdrawn" not in run.record.thresholds.image.to_dict()


@pytest.mark.row("3.15")
@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (monitored(), "the epoch, by image_AUROC of 2"),
        (monitored(keep="last", patience=3), "the epoch, by image_AUROC of 2"),
        (
            {"sweep": {"refit": {"metric": "image_AUROC", "split": "validation", "among": 12, "oracle": False}}},
            "this configuration, by image_AUROC of 12",
        ),
        ({"sweep": {"objective": "image_AUPR"}}, "configurations, in a search by image_AUPR"),
    ],
)
def test_images_that_chose_promise_nothing_unless_others_were_held_back(run: Run, facts: dict[str, Any], words: str):
    run.update(**facts)
    for rule in ("conformal", "recall"):
        withdrawn = set_threshold(run, rule, OPTIONS, ["image"])["image"]
        recorded = Run.open(run.folder).record.thresholds.image
        assert recorded.withdrawn == withdrawn.withdrawn
        assert words in str(recorded.withdrawn)
        assert "nothing is promised" in recorded.reason
        assert "probability of at most" not in recorded.reason
        assert "95 % confidence" not in recorded.reason
        assert row_of(run)["threshold_rule"] == f"{rule} (promise withdrawn) / f1"
    scores = sorted(row.score for row in hold_back(run))
    kept = set_threshold(run, "conformal", OPTIONS, ["image"])["image"]
    assert kept.value == scores[8]  # ceil(11 * 0.8) of 10
    assert kept.withdrawn is None
    assert "score 9 of 10 held-out good ones" in kept.reason
    assert set_threshold(run, "recall", OPTIONS, ["image"])["image"].withdrawn is not None, "anomalous ones chose too"


@pytest.mark.parametrize(
    "facts",
    [monitored(keep="last"), monitored(values={"1": 0.8}), {"sweep": {"refit": {"named": "1"}}}],
    ids=["only watched", "one epoch", "named by hand"],
)
def test_what_chose_nothing_keeps_the_promise(run: Run, facts: dict[str, Any]):
    run.update(**facts)
    assert set_threshold(run, "conformal", OPTIONS, ["image"])["image"].withdrawn is None


def test_a_loss_of_good_images_was_not_chosen_by_anomalous_ones(run: Run):
    run.update(**monitored(metric="val_good_loss"))
    assert choices_of(run.record, 1) == []
    assert set_threshold(run, "recall", OPTIONS, ["image"])["image"].withdrawn is None
    assert set_threshold(run, "conformal", OPTIONS, ["image"])["image"].withdrawn is not None


def test_a_choice_made_later_withdraws_what_was_promised(run: Run):
    set_threshold(run, "conformal", OPTIONS, ["image"])
    withdraw_recorded(run)
    assert run.record.thresholds.image.withdrawn is None
    run.update(sweep={"refit": {"metric": "image_AUROC", "split": "validation", "among": 3, "oracle": False}})
    withdraw_recorded(run)
    assert "no longer holds" in run.record.thresholds.image.reason
    assert run.record.thresholds.pixel.withdrawn is None, "its rule promises nothing"


def test_images_held_back_choose_neither_configuration_nor_other_thresholds(run: Run):
    held_back = {row.image_path for row in hold_back(run)}
    rows = run.scores("validation")
    assert {row.image_path for row in choosing_rows(run.record, rows) if row.label == -1} == held_back
    calibrating = [row for row in rows_for_rule(run.record, rows, "conformal") if row.label == 0]
    assert {row.image_path for row in calibrating} == held_back
    before = validation_metric(run, "image_AUROC"), set_threshold(run, "f1", OPTIONS, ["image"])["image"].value
    run.write_scores([
        ScoreRow(row.image_path, "validation", "", row.label, 99.0 if row.image_path in held_back else row.score, -1)
        for row in rows
    ])  # fmt: skip
    assert validation_metric(run, "image_AUROC") == before[0]
    assert set_threshold(run, "f1", OPTIONS, ["image"])["image"].value == before[1]
    assert set_threshold(run, "conformal", OPTIONS, ["image"])["image"].value == 99.0
