"""What a record says beside its metrics: intervals of each, and each kind of defect."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.runs import finished, set_protocol
from sklearn.metrics import f1_score, roc_auc_score

from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.evaluation.intervals import auroc_interval
from defectlab.evaluation.pixel.metrics import aupro
from defectlab.evaluation.threshold import DefaultRule, RuleOptions
from defectlab.results.evaluate import choose_thresholds, evaluate_run
from defectlab.results.map_retention import drop_maps
from defectlab.results.record_parts import no_thresholds
from defectlab.results.rethreshold import set_threshold
from defectlab.results.run.arrays import pack_masks
from defectlab.results.run.run import Run
from defectlab_runtime.scores import ScoreRow

SHAPE = (12, 13)
KINDS = ["good"] * 12 + ["scratch"] * 7 + ["hole"] * 5


@pytest.fixture
def run() -> Run:
    """A run of two kinds of defect, holes hard and scratches easy to find, and one unknown image in the test."""
    run = finished("a", metrics={})
    draw = np.random.default_rng(0)
    rows = []
    for split in ("validation", "test"):
        kinds = [*KINDS, "unknown"] if split == "test" else KINDS
        strength = np.array([{"scratch": 2.5, "hole": 0.8}.get(kind, 0.0) for kind in kinds])
        masks = np.zeros((len(kinds), *SHAPE), dtype=bool)
        masks[strength > 0, 3:7, 2:9] = True
        maps = (draw.normal(size=masks.shape) + strength[:, None, None] * masks).astype(np.float32)
        run.maps_path(split).parent.mkdir(exist_ok=True)
        np.save(run.maps_path(split), maps)
        np.save(run.masks_path(split), pack_masks(masks))
        labels = [{"good": 0, "unknown": -1}.get(kind, 1) for kind in kinds]
        scores = draw.normal(size=len(kinds)) + strength
        rows += [ScoreRow(f"{split}{n}.png", split, kinds[n], labels[n], scores[n], -1) for n in range(len(kinds))]
    run.write_scores(rows)
    run.update(maps={"kept": "all"}, preprocessing=Preprocessing(size=SHAPE).to_dict())
    run.update(**evaluate_run(run))
    return run


def test_each_kind_of_defect_is_measured_against_all_good_images(run: Run):
    good, hole, scratch = run.record.per_defect
    assert [(one.defect, one.label, one.count) for one in (good, hole, scratch)] == [
        ("good", 0, 12),
        ("hole", 1, 5),
        ("scratch", 1, 7),
    ]
    rows = run.scores("test")
    maps, masks = np.asarray(run.maps("test")), run.masks("test")
    for kind in (hole, scratch):
        places = [n for n, row in enumerate(rows) if row.defect in ("good", kind.defect)]
        labels = np.array([rows[n].label for n in places])
        scores = np.array([rows[n].score for n in places])
        assert kind.image_auroc == pytest.approx(roc_auc_score(labels, scores))
        assert kind.image_f1_score == pytest.approx(f1_score(labels, scores > 1.5))
        assert kind.flagged == int((scores[labels == 1] > 1.5).sum())
        assert kind.mean_score == pytest.approx(scores[labels == 1].mean())
        interval = auroc_interval(scores, labels)
        assert kind.interval.to_dict() == {"low": interval.low, "high": interval.high, "method": interval.method}
        truth, pixels = masks[places].ravel(), maps[places].ravel()
        assert kind.pixel_auroc == pytest.approx(roc_auc_score(truth, pixels))
        assert kind.pixel_f1_score == pytest.approx(f1_score(truth, pixels > 0.75))
        assert kind.pixel_aupro == aupro(maps[places], masks[places]).value
    assert hole.pixel_auroc < run.record.metrics["pixel_AUROC"] < scratch.pixel_auroc
    assert good.image_auroc is good.pixel_auroc is good.interval is None
    assert good.flagged == sum(row.score > 1.5 for row in rows if row.label == 0)


def test_every_metric_that_has_a_value_has_an_interval_around_it(run: Run):
    metrics, intervals = run.record.metrics, run.record.intervals
    assert set(intervals) == {name for name, value in metrics.items() if value is not None}
    assert len(intervals) == 21
    for name, interval in intervals.items():
        assert interval.confidence == 0.95
        if interval.low is None:
            assert "with fewer than" in interval.method or "same value" in interval.method, name
        else:
            assert interval.low <= metrics[name] <= interval.high, name
    # precision: no false alarm; FPR_at_95TPR: too few images
    without = {name for name, interval in intervals.items() if interval.low is None}
    assert without <= {"image_precision", "image_FPR_at_95TPR", "pixel_FPR_at_95TPR"}
    assert intervals["image_AUROC"].method.startswith("DeLong")
    assert intervals["pixel_AUPRO"].method.startswith("stratified bootstrap over images, 1000 draws")


def test_a_metric_without_a_value_has_no_interval(run: Run):
    run.masks_path("test").unlink()
    results = evaluate_run(run)
    assert not [name for name in results["intervals"] if name.startswith("pixel")]
    assert [kind.pixel_auroc for kind in results["per_defect"]] == [None] * 3
    nothing = no_thresholds("not asked for")
    results = evaluate_run(run, nothing)
    assert set(results["intervals"]) == {"image_AUROC", "image_AUPR", "image_F1Max", "image_FPR_at_95TPR"}
    assert [kind.flagged for kind in results["per_defect"]] == [None] * 3


def test_without_maps_what_was_said_of_pixels_stays(run: Run):
    before = run.record
    run.update(maps=drop_maps(run, "none"))
    set_threshold(run, "quantile", RuleOptions(false_alarm_rate=0.25), ["image"])
    after = Run.open(run.folder).record
    for name in before.intervals:
        if name.startswith("pixel"):
            assert after.intervals[name] == before.intervals[name]
    for old, new in zip(before.per_defect, after.per_defect, strict=True):
        assert new.pixel_aupro == old.pixel_aupro
    threshold = after.thresholds.image.value
    flagged = sum(row.score > threshold for row in run.scores("test") if row.label == 0)
    assert after.per_defect[0].flagged == flagged != before.per_defect[0].flagged
    assert after.evaluation.to_dict() == {"pixel_size": "input", "grid": list(SHAPE)}


def test_images_of_one_part_are_drawn_together(run: Run, monkeypatch: pytest.MonkeyPatch):
    def row_groups(record: dict, rows: list[ScoreRow]) -> list[str]:
        return [f"{row.label} {number // 2}" for number, row in enumerate(rows)]

    monkeypatch.setattr("defectlab.results.evaluate.row_groups", row_groups)
    monkeypatch.setattr("defectlab.results.evaluate.evaluate_groups", lambda *_: None)
    set_protocol(run, group=r"part\d")
    methods = {name: interval.method for name, interval in evaluate_run(run)["intervals"].items()}
    assert "clustered by part" in methods["image_AUROC"]
    assert "groups of images" in methods["image_F1Score"]
    assert "groups of images" in methods["image_TPR"]  # images of a part are no independent throws: no Wilson
    assert "groups of images" in methods["pixel_AUPRO"]


def own_rows(run: Run, labels: tuple[int, ...] = (0, 1)) -> list[ScoreRow]:
    return [row for row in run.scores("validation") if row.label in labels]


def test_a_models_own_rule_chooses_the_image_threshold_and_where_it_says_so_the_pixels(run: Run):
    rows, maps, masks = run.scores("validation"), run.maps("validation"), run.masks("validation")
    good = np.array([row.score for row in own_rows(run, (0,))])
    by = DefaultRule("mean_plus_k_std", RuleOptions(k=2.0))
    image, pixel = choose_thresholds(rows, maps, masks, by)
    assert image.value == pytest.approx(good.mean() + 2 * good.std())
    assert (image.rule, pixel.rule) == ("mean_plus_k_std", "f1")
    image, pixel = choose_thresholds(rows, maps, masks, replace(by, pixel_as_image=True))
    assert pixel.value == image.value
    assert "the image threshold" in pixel.reason


def test_one_good_validation_image_is_warned_of_where_the_rule_needs_a_deviation(caplog: pytest.LogCaptureFixture):
    one = [ScoreRow("a.png", "validation", "good", 0, 2.5, -1), ScoreRow("b.png", "validation", "hole", 1, 9.0, -1)]
    by = DefaultRule("mean_plus_k_std", RuleOptions(k=3.0))
    image, _ = choose_thresholds(one, None, None, by)
    assert image.value == 2.5
    assert "One good validation image has no standard deviation" in caplog.text
    caplog.clear()
    choose_thresholds([*one, replace(one[0], score=3.5)], None, None, by)
    assert not caplog.text


def test_a_rule_that_these_images_do_not_allow_gives_way_and_says_so(run: Run, caplog: pytest.LogCaptureFixture):
    image, _ = choose_thresholds(own_rows(run, (0,)), None, None, DefaultRule("mean_of_means"))
    assert image.rule == "good_max"
    assert "needs anomalous images" in caplog.text


def test_scores_and_maps_that_are_not_finite_have_no_metric_and_choose_no_threshold(run: Run):
    rows = run.scores()
    wrong = {"validation3.png": np.inf, "test5.png": -np.inf, "test7.png": np.nan, f"test{len(KINDS)}.png": np.inf}
    run.write_scores([replace(row, score=wrong.get(row.image_path, row.score)) for row in rows])
    found = evaluate_run(run)
    reason = f"2 of {len(KINDS)} scores are not finite (1 NaN and 1 infinite)"  # the unknown image is left out
    assert {found["metric_reasons"][name] for name in ("image_AUROC", "image_F1Max", "image_TPR")} == {reason}
    assert found["metrics"]["pixel_AUROC"] is not None
    assert "image_AUROC" not in found["intervals"]

    validation = run.scores("validation")
    maps = np.load(run.maps_path("validation"))
    image, pixel = choose_thresholds(validation, maps, None)
    assert (image.value, image.reason) == (None, f"1 of {len(KINDS)} scores are not finite (1 infinite)")
    assert pixel.value is not None
    maps[[0, 4], 2, 3] = [np.inf, np.nan]
    _, pixel = choose_thresholds(validation, maps, None)
    assert pixel.value is None
    assert pixel.reason == f"2 of {len(KINDS)} anomaly maps have values that are not finite"

    tested = np.load(run.maps_path("test"))
    tested[-1] = np.inf  # the unknown image's, which counts nowhere
    np.save(run.maps_path("test"), tested)
    assert evaluate_run(run)["metrics"]["pixel_AUROC"] is not None
    tested[0, 0, 0] = -np.inf
    np.save(run.maps_path("test"), tested)
    found = evaluate_run(run)
    assert found["metrics"]["pixel_AUROC"] is None
    assert found["metric_reasons"]["pixel_AUPRO"] == f"1 of {len(KINDS)} anomaly maps have values that are not finite"
