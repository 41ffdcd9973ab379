"""Data rules in whole runs: what is trained, scored, measured and shown."""

from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import make_parts
from helpers.models import data, small
from PIL import Image

from defectlab import Engine
from defectlab.data.folder import Folder
from defectlab.evaluation.suite import evaluate
from defectlab.results.comparison.ranking import rank_rows
from defectlab.results.groups import groups_of_paths
from defectlab.results.run.run import Run
from defectlab.results.workbook import read_workbook
from defectlab.results.workbook_row import best_rows, row_of
from defectlab.visualization.run_panel import run_panel


def trained(root: Path, name: str = "padim", results: str = "results", **options) -> Run:
    """Train, test and return the finished run; `options` are Folder's."""
    model = small(name)
    Engine(default_root_dir=results).train(model=model, datamodule=data(root, **options))
    return Run.open(model.run_folder)


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of which two defects have no mask, with two images of unknown label."""
    root = make_parts(tmp_path_factory.mktemp("gaps") / "parts", bad=8)
    for number in (1, 2, 3, 4):
        (root / f"ground_truth/blot/{number:03d}_mask.png").unlink()
    (root / "test/unknown").mkdir()
    for number in (0, 1):
        name = f"test/unknown/{number}.png"
        (root / name).write_bytes((root / f"test/blot/{number:03d}.png").read_bytes())
    return root


@pytest.mark.row("3.5")
def test_unknown_images_are_scored_and_shown_and_never_counted(gaps: Path):
    run = trained(gaps, missing_masks="leave_out")
    rows = run.scores("test")
    unknown = [row for row in rows if row.defect == "unknown"]
    assert [row.label for row in unknown] == [-1, -1]
    assert all(np.isfinite(row.score) and row.pred_label in (0, 1) for row in unknown)
    known = [row for row in rows if row.label >= 0]
    masks, maps, threshold = run.masks("test"), run.maps("test"), run.record.thresholds
    bare = {name.split("/")[-1] for name in run.record.dataset.without_mask}
    assert bare == {"001.png", "002.png", "003.png", "004.png"}
    counted = [
        i for i, row in enumerate(rows) if row.label >= 0 and not (row.label and Path(row.image_path).name in bare)
    ]
    assert len(counted) < len(known) < len(rows)
    expected = evaluate(
        [rows[i].score for i in counted], [rows[i].label for i in counted], maps[counted], masks[counted],
        image_threshold=threshold.image.value, pixel_threshold=threshold.pixel.value,
    )  # fmt: skip
    for name, metric in expected.items():
        if name.startswith("pixel"):
            assert run.record.metrics[name] == pytest.approx(metric.value, abs=1e-12), name
    assert "left out" in _protocol_of(run)
    assert "2 images of unknown label" in _protocol_of(run)
    assert run_panel(run) is not None


@pytest.mark.row("3.5")
def test_a_defect_without_a_mask_may_count_as_a_whole(gaps: Path):
    run = trained(gaps, missing_masks="whole")
    rows, masks = run.scores("test"), run.masks("test")
    bare = [i for i, row in enumerate(rows) if row.defect == "blot" and masks[i].all()]
    assert bare
    assert all(Path(rows[i].image_path).name in {f"{n:03d}.png" for n in (1, 2, 3, 4)} for i in bare)
    assert not any(masks[i].any() for i, row in enumerate(rows) if row.label < 1)


def test_classification_has_no_pixel_metrics_and_says_why(parts: Path):
    run = trained(parts, task="classification")
    assert run.record.metrics["pixel_AUROC"] is None
    assert run.record.metric_reasons["pixel_AUROC"] == "the task is classification: no masks are used"
    assert run.record.metrics["image_AUROC"] is not None
    assert "classification" in _protocol_of(run)


def _protocol_of(run: Run) -> str:
    from defectlab.results.workbook_row import row_of

    return row_of(run)["protocol"]


def test_folder_options_round_trip(gaps: Path):
    options = {"missing_masks": "leave_out", "mask_suffix": "_mask", "task": "segmentation"}
    folder = data(gaps, **options)
    assert options.items() <= folder.options.items()
    assert Folder(**folder.options).manifest.hash == folder.manifest.hash


def test_a_limited_test_leaves_a_partial_run_that_is_not_ranked(parts: Path, tmp_path: Path, caplog):
    model = small("padim")
    Engine(default_root_dir=tmp_path / "results", limit_test_batches=1, enable_progress_bar=False).train(
        model=model, datamodule=data(parts, eval_batch_size=2)
    )
    run = Run.open(model.run_folder)
    assert (run.status, run.record.partial) == ("finished", "2 of 4 test images scored")
    assert "The run is partial and will not be ranked" in caplog.text
    row = row_of(run)
    assert row["state"] == "partial: 2 of 4 test images scored"
    assert rank_rows([row], {}, {}) == []
    assert best_rows([row]) == {}
    assert read_workbook()[0]["state"] == row["state"]
    Engine(default_root_dir=tmp_path / "results", enable_progress_bar=False).test(
        datamodule=data(parts, eval_batch_size=2), ckpt_path=run.checkpoint_file()
    )
    whole = Run.open(model.run_folder)
    assert whole.record.partial is None
    assert len(rank_rows([row_of(whole)], {}, {})) == 1


def test_near_duplicates_across_splits_are_on_record_and_groups_of_them_are_units(tmp_path: Path, caplog):
    root = make_parts(tmp_path / "parts", train=10, good=4)
    with Image.open(root / "train/good/001.png") as image:
        image.save(root / "test/good/copy.png", compress_level=0)
    run = trained(root, results=str(tmp_path / "leaks"))
    assert run.record.dataset.near_duplicates == 1
    assert "1 pairs of near-duplicates lie in two splits" in caplog.text
    assert row_of(run)["near_duplicates"] == 1
    (root / "test/good/copy.png").rename(root / "train/good/copy.png")
    run = trained(root, results=str(tmp_path / "kept"), group="near_duplicates", val_split_mode="from_train")
    together = ["train/good/001.png", "train/good/copy.png"]
    assert run.record.dataset.protocol.copies == [together]
    assert run.record.dataset.near_duplicates == 0
    assert groups_of_paths(run.record, [f"{run.record.dataset.root}/{name}" for name in together]) == [together[0]] * 2
    assert Run.open(run.folder).record.dataset.protocol == run.record.dataset.protocol
