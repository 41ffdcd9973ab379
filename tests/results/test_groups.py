"""A part's score is its highest photograph's: from the record alone, and in a run from images to run.json."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import finished, set_protocol
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

from defectlab.cli import main
from defectlab.data.manifest.groups import group_of
from defectlab.evaluation.threshold import RuleOptions
from defectlab.evaluation.threshold_rules import choose
from defectlab.results.evaluate import columns, evaluate_run
from defectlab.results.groups import group_columns, row_groups
from defectlab.results.rethreshold import image_threshold, set_threshold
from defectlab.results.run.run import Run
from defectlab_runtime.errors import OptionError
from defectlab_runtime.scores import ScoreRow

PATTERN = r"(.*/\d+)_"


@pytest.fixture
def run() -> Run:
    """A run of 20 parts a split with three photographs each; a defect shows in the first photograph only."""
    run = finished("a", metrics={})
    random = np.random.default_rng(0)
    rows = []
    for split in ("validation", "test"):
        for part in range(20):
            for view in range(3):
                label = int(part % 2 and view == 0)
                score = float(np.float32(random.normal(3 * label, 1)))
                path = f"data/coins/{split}/{part:02d}_{view}.png"
                rows.append(ScoreRow(path, split, "crack" if label else "good", label, score, -1))
    run.write_scores(rows)
    set_protocol(run, group=PATTERN)
    run.update(maps={"kept": "none"})
    return run


def by_hand(run: Run, split: str) -> tuple[list[float], list[int]]:
    parts: dict[str, list[ScoreRow]] = {}
    for row in run.scores(split):
        parts.setdefault(row.image_path.rsplit("_", 1)[0], []).append(row)
    rows = parts.values()
    return [max(row.score for row in one) for one in rows], [max(row.label for row in one) for one in rows]


def test_metrics_of_parts_are_scikit_learns(run: Run):
    parts = evaluate_run(run)["groups"]
    scores, labels = by_hand(run, "test")
    assert (parts.count, parts.images, parts.counts) == (20, 60, {"good": 10, "anomalous": 10})
    assert parts.pattern == PATTERN
    assert parts.metrics["part_AUROC"] == pytest.approx(roc_auc_score(labels, scores))
    threshold = parts.thresholds.group
    assert (threshold.rule, threshold.source, threshold.oracle) == ("f1", "validation", False)
    decided = np.array(scores) > threshold.value
    assert parts.metrics["part_F1Score"] == pytest.approx(f1_score(labels, decided))
    of_validation, known = by_hand(run, "validation")
    best = max(f1_score(known, np.array(of_validation) > cut) for cut in (-9, *of_validation))
    assert f1_score(known, np.array(of_validation) > threshold.value) == pytest.approx(best)
    interval = parts.intervals["part_AUROC"]
    assert interval.low < parts.metrics["part_AUROC"] < interval.high
    assert "parts" in parts.intervals["part_F1Score"].method
    assert not [name for name in parts.metrics if not name.startswith("part_")]


def test_the_interval_of_images_knows_that_parts_are_not_independent(run: Run):
    assert "clustered by part" in evaluate_run(run)["intervals"]["image_AUROC"].method


def test_parts_of_a_dataset_outside_the_project_are_named_alike(run: Run):
    rows = [ScoreRow("/elsewhere/coins/test/01_2.png", "test", "", 0, 1.0, -1)]
    run.update(dataset=run.record.dataset.replaced(root="/elsewhere/coins"))
    set_protocol(run, group=r"^(test/\d+)_")
    assert row_groups(run.record, rows) == ["test/01"]
    set_protocol(run, group=None)
    assert row_groups(run.record, rows) is None


def test_nan_and_unknown_are_kept():
    rows = [
        ScoreRow(str(n), "test", "", label, score, -1)
        for n, (label, score) in enumerate([(0, 1), (-1, np.nan), (-1, 5)])
    ]
    scores, labels = group_columns(rows, ["a", "a", "b"])
    assert np.isnan(scores[0])
    assert (scores[1], labels.tolist()) == (5, [0, -1])


def test_the_parts_threshold_follows_the_rule_and_stays(run: Run):
    run.update(**evaluate_run(run))
    set_threshold(run, "conformal", RuleOptions(false_alarm_rate=0.2), ["image"])
    opened = Run.open(run.folder)
    good = sorted(score for score, label in zip(*by_hand(run, "validation"), strict=True) if label == 0)
    chosen = opened.record.groups.thresholds.group
    assert (chosen.value, chosen.rule) == (good[8], "conformal")  # ceil(11 * 0.8) of 10
    assert evaluate_run(opened)["groups"].thresholds.group == chosen
    assert opened.record.thresholds.image.value == good[8], "a good image is not above its part's highest"
    assert "counted in parts" in opened.record.thresholds.image.reason
    # 50 good photographs would be enough for 3 %, were they independent; ten good parts are not
    with pytest.raises(OptionError, match="needs at least 33 held-out good images, and parts of validation has 10"):
        set_threshold(run, "conformal", RuleOptions(false_alarm_rate=0.03), ["image"])
    set_threshold(run, "recall", RuleOptions(recall=0.8), ["image"])
    assert "images of one part are not independent" in run.record.thresholds.image.reason
    set_threshold(run, "manual", RuleOptions(value=1.25), ["image"])
    chosen = Run.open(run.folder).record.groups.thresholds.group
    assert (chosen.value, chosen.source, chosen.oracle) == (1.25, "the user", False)


def photographs(root: Path) -> Path:
    """Six to eight parts a folder, two photographs each; the defect is in the second one."""
    random = np.random.default_rng(0)
    for folder, count in (("train/good", 5), ("test/good", 6), ("test/blot", 6)):
        (root / folder).mkdir(parents=True)
        for part in range(count):
            for view in range(2):
                pixels = random.normal(110, 12, (64, 64, 3)).clip(0, 255)
                if folder == "test/blot" and view == 1:
                    pixels[20:34, 20:34] = (250, 240, 60)
                Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{part}_{view}.png")
    return root


def test_from_images_to_run_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = photographs(tmp_path / "data" / "parts")
    arguments = ["train", "--data.root", str(root), "--data.group", PATTERN, "--data.num_workers", "0"]
    arguments += ["--backbone.weights", "random", "--trainer.enable_progress_bar", "false", "--model.name", "padim"]
    arguments += ["--model.layers", "[layer1]", "--model.n_features", "10", "--model.image_size", "[64, 64]"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "part_AUROC" in printed
    assert "6 parts (3 anomalous) of 12 images" in printed
    (file,) = (tmp_path / "results").glob("*/*/*/run.json")
    run = Run.open(file.parent)
    rows = {split: run.scores(split) for split in ("validation", "test")}
    names = {split: {group_of(row.image_path, PATTERN) for row in found} for split, found in rows.items()}
    assert not names["validation"] & names["test"]
    assert all(len(found) == 12 for found in rows.values())
    assert run.record.dataset.protocol.group == PATTERN
    assert run.record.facts["data.group"] == PATTERN
    assert run.record.groups.count == 6
    assert main(["evaluate", str(run.folder)]) == 0
    assert "part_AUROC" in capsys.readouterr().out
    assert Run.open(run.folder).record.groups == run.record.groups


def test_conformal_keeps_its_rate_where_the_photographs_of_a_part_are_alike(run: Run):
    """By simulation, 5 % asked: 19 good parts suffice; 9 parts do not, however many photographs they have."""
    random = np.random.default_rng(0)
    set_protocol(run, group=r"(\d+)_")
    options, new = RuleOptions(false_alarm_rate=0.05), random.normal(size=2000)

    def photographs_of(parts: int, each: int) -> list[ScoreRow]:
        scores = np.repeat(random.normal(size=parts), each)
        places = enumerate(scores.tolist())
        return [ScoreRow(f"{n // each}_{n % each}.png", "validation", "good", 0, one, -1) for n, one in places]

    found = (image_threshold(run, photographs_of(19, 4), "conformal", options, "validation") for _ in range(300))
    assert np.mean([np.mean(new > one.value) for one in found]) <= 0.058
    few = [photographs_of(9, 10) for _ in range(300)]
    naive = (choose("conformal", *columns(rows), options, "validation") for rows in few)
    assert np.mean([np.mean(new > one.value) for one in naive]) > 0.08
    with pytest.raises(OptionError, match="needs at least 19 held-out good images, and parts of validation has 9"):
        image_threshold(run, few[0], "conformal", options, "validation")


def test_a_rule_that_parts_do_not_allow_leaves_the_image_threshold(run: Run):
    run.write_scores([replace(row, label=1) if row.image_path.endswith("_0.png") else row for row in run.scores()])
    run.update(**evaluate_run(run))
    set_threshold(run, "quantile", RuleOptions(false_alarm_rate=0.1), ["image"])
    record = Run.open(run.folder).record
    assert record.thresholds.image.rule == "quantile"
    assert record.groups.thresholds.group.value is None
    assert "needs good images, and parts of validation has none" in record.groups.thresholds.group.reason
    assert record.groups.metrics["part_F1Score"] is None
