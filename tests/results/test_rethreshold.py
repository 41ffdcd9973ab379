"""Another threshold for a finished run, from its record alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import finished, set_protocol

from defectlab.cli import main
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.evaluation.threshold import RuleOptions
from defectlab.results.rethreshold import count_for_promise, restore_thresholds, set_threshold
from defectlab.results.run.arrays import pack_masks
from defectlab.results.run.result_records import Thresholds
from defectlab.results.run.run import Run
from defectlab.results.workbook import read_workbook
from defectlab_runtime.errors import InputError, OptionError
from defectlab_runtime.scores import ScoreRow

SHAPE = (4, 5)


@pytest.fixture
def run() -> Run:
    """A run of 30 validation and 30 test images, every third one anomalous, with maps and masks."""
    run = finished("a", metrics={})
    random = np.random.default_rng(0)
    rows = []
    for split in ("validation", "test"):
        labels = np.arange(30) % 3 == 0
        masks = np.zeros((30, *SHAPE), dtype=bool)
        masks[labels, 1:3, 2] = True
        maps = (random.normal(0, 1, masks.shape) + 3 * masks).astype(np.float32)
        run.maps_path(split).parent.mkdir(exist_ok=True)
        np.save(run.maps_path(split), maps)
        np.save(run.masks_path(split), pack_masks(masks))
        scores = maps.reshape(30, -1).max(axis=1)
        rows += [ScoreRow(f"{split}{n}.png", split, "", int(labels[n]), float(scores[n]), -1) for n in range(30)]
    run.write_scores(rows)
    run.update(maps={"kept": "all"}, preprocessing=Preprocessing(size=SHAPE).to_dict())
    return run


def good(run: Run, split: str) -> list[float]:
    return [row.score for row in run.scores(split) if row.label == 0]


@pytest.mark.row("3.15")
def test_the_record_changes_as_one_and_the_labels_with_it(run: Run):
    chosen = set_threshold(run, "conformal", RuleOptions(false_alarm_rate=0.2), ["image"])
    opened = Run.open(run.folder)
    threshold = opened.record.thresholds.image
    assert threshold.value == chosen["image"].value == sorted(good(run, "validation"))[16]  # ceil(21 * 0.8) of 20
    assert (threshold.rule, threshold.source, threshold.oracle) == ("conformal", "validation", False)
    assert all(row.pred_label == (row.score > threshold.value) for row in opened.scores())
    caught = [row.pred_label for row in opened.scores("test") if row.label == 1]
    assert opened.record.metrics["image_TPR"] == np.mean(caught)
    assert opened.record.thresholds.pixel.value == 0.75  # as it was


def test_at_pixel_level_the_false_alarm_rate_is_of_good_images(run: Run):
    value = set_threshold(run, "quantile", RuleOptions(false_alarm_rate=0.1), ["pixel"])["pixel"].value
    highest = [run.maps("validation")[n].max() for n, row in enumerate(run.scores("validation")) if row.label == 0]
    assert np.mean(np.array(highest) > value) == pytest.approx(0.1)
    value = set_threshold(run, "mean_plus_k_std", RuleOptions(k=2), ["pixel"])["pixel"].value
    pixels = np.array([run.maps("validation")[n] for n, row in enumerate(run.scores("validation")) if row.label == 0])
    assert value == pytest.approx(pixels.mean() + 2 * pixels.std(), rel=1e-6)


def test_the_test_images_stay_an_oracle_whatever_was_chosen_by_hand_before(run: Run):
    set_protocol(run, validation_is_test=True)
    set_threshold(run, "manual", RuleOptions(value=1.0), ["image"])
    assert run.record.thresholds.image.source == "the user"
    set_threshold(run, "f1", RuleOptions(), ["image"])
    assert run.record.thresholds.image.oracle is True


@pytest.mark.parametrize(
    ("rule", "levels", "message"),
    [
        ("manual", ["image", "pixel"], "give --level image or --level pixel"),
        ("cost", ["pixel"], "weighs parts"),
        ("f1", ["patch"], "level must be"),
        ("conformal", ["image", "pixel"], "needs at least 99"),
    ],
)
def test_what_cannot_work_changes_nothing(run: Run, rule: str, levels: list[str], message: str):
    before = (run.folder / "run.json").read_bytes(), (run.folder / "scores.csv").read_bytes()
    with pytest.raises(OptionError, match=message):
        set_threshold(run, rule, RuleOptions(value=1.0), levels)
    assert ((run.folder / "run.json").read_bytes(), (run.folder / "scores.csv").read_bytes()) == before


def test_without_maps_or_masks_pixels_are_refused_with_what_works(run: Run):
    run.masks_path("validation").unlink()
    with pytest.raises(InputError, match=r"needs masks at pixel level.*quantile"):
        set_threshold(run, "f1", RuleOptions(), ["pixel"])
    run.update(maps={"kept": "none"})
    with pytest.raises(InputError, match="did not keep its maps"):
        set_threshold(run, "manual", RuleOptions(value=1.0), ["pixel"])


def test_the_command_needs_no_model_and_renews_the_row(run: Run, capsys: pytest.CaptureFixture[str], own_project: Path):
    arguments = ["threshold", "--run", str(run.folder), "--rule", "recall", "--recall", "0.9", "--level", "image"]
    assert main(arguments) == 0
    assert "anomalous images of validation; with 95 % confidence" in capsys.readouterr().out
    (row,) = read_workbook()
    assert row["threshold_rule"] == "recall / f1"
    assert row["image_threshold"] == pytest.approx(Run.open(run.folder).record.thresholds.image.value)


def test_choices_are_taken_back_one_by_one(run: Run):
    states = []
    for rule, options in (("f1", RuleOptions()), ("conformal", RuleOptions(false_alarm_rate=0.2))):
        set_threshold(run, rule, options, ["image"])
        states.append((run.record.thresholds, run.record.metrics, run.record.intervals, run.scores()))
    set_threshold(run, "quantile", RuleOptions(false_alarm_rate=0.3), ["image", "pixel"])
    assert [one.thresholds.image.rule for one in run.record.earlier_thresholds] == ["f1", "f1", "conformal"]
    assert restore_thresholds(run) == states[1][0]
    assert (run.record.thresholds, run.record.metrics, run.record.intervals, run.scores()) == states[1]
    restore_thresholds(run)
    assert (run.record.thresholds, run.record.metrics, run.record.intervals, run.scores()) == states[0]
    assert restore_thresholds(run).image.value == 1.5  # of the training
    assert Run.open(run.folder).record.earlier_thresholds == []
    with pytest.raises(InputError, match="nothing to take back"):
        restore_thresholds(run)


def test_what_can_be_promised_counts_the_images_that_conformal_uses(run: Run):
    assert count_for_promise(run) == 20
    held_back = [row.image_path for row in run.scores("validation") if row.label == 0][:7]
    run.update(dataset=run.record.dataset.replaced(calibration=held_back))
    assert count_for_promise(run) == 7
    set_protocol(run, group="(validation[0-9])[0-9]*")  # validation1, validation10 ... are one part
    assert count_for_promise(run) == 4, "parts 4, 5, 7 and 8; in all others there is a defect"


def test_the_same_choice_twice_is_one(run: Run):
    for _ in range(2):
        set_threshold(run, "quantile", RuleOptions(false_alarm_rate=0.3), ["image"])
    assert restore_thresholds(run).image.value == 1.5


def test_pixels_are_not_taken_back_without_the_maps(run: Run):
    set_threshold(run, "quantile", RuleOptions(false_alarm_rate=0.3), ["pixel"])
    run.update(maps={"kept": "none"})
    before = run.record
    with pytest.raises(InputError, match="did not keep its maps"):
        restore_thresholds(run)
    assert Run.open(run.folder).record == before


def test_nothing_is_written_where_what_goes_along_fails(run: Run):
    @contextmanager
    def full_disk(_: Thresholds) -> Iterator[None]:
        raise OSError("no space left")
        yield

    before = (run.folder / "run.json").read_bytes(), (run.folder / "scores.csv").read_bytes()
    with pytest.raises(OSError, match="no space"):
        set_threshold(run, "quantile", RuleOptions(false_alarm_rate=0.3), ["image"], full_disk)
    assert ((run.folder / "run.json").read_bytes(), (run.folder / "scores.csv").read_bytes()) == before


@pytest.mark.parametrize("split", ["validation", "test"])
def test_maps_of_other_rows_are_refused_and_nothing_changes(run: Run, split: str):
    first = next(row for row in run.scores() if row.split == split)
    run.write_scores([row for row in run.scores() if row != first])
    before = run.record
    with pytest.raises(InputError, match=f"scores.csv has 29 {split} images, and there are 30 maps"):
        set_threshold(run, "f1", RuleOptions(), ["pixel"])
    assert Run.open(run.folder).record == before


def test_a_run_trained_again_says_that_the_threshold_set_before_is_gone(caplog: pytest.LogCaptureFixture):
    first = finished("again")
    finished("again")
    assert "set after its training" not in caplog.text
    first = Run.open(first.folder)  # which the second has replaced
    first.update(earlier_thresholds=[{"thresholds": first.record.thresholds.to_dict(), "until": "2026-01-01"}])
    finished("again")
    assert "thresholds had been set after its training ({'image': 'f1 1.5'" in caplog.text
    assert Run.open(first.folder).record.earlier_thresholds == []
