"""Small defects on the grid of the pixel metrics: kept, counted, and measured as anomalib does beside it."""

import logging
from pathlib import Path

import numpy as np
import pytest
from helpers.models import data, small
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from defectlab import Engine
from defectlab.results.evaluate import evaluate_run
from defectlab.results.mask_loss import describe_mask_loss
from defectlab.results.pixel_grid import describe_grid
from defectlab.results.run.record import RunRecord
from defectlab.results.run.run import Run
from defectlab.visualization.report import write_report

SIDE, INPUT = 256, 64  # of the images and of the model's input: a cell is 4 x 4 pixels


@pytest.fixture(scope="module")
def tiny_defects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey plates; a defect is a bright square of 2 x 2 pixels, or a scratch on the edge of two rows of cells."""
    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for folder, count in (("train/good", 6), ("test/good", 4), ("test/dot", 6), ("test/scratch", 4)):
        for place in range(count):
            pixels = rng.normal(120, 4, (SIDE, SIDE))
            mask = np.zeros((SIDE, SIDE), dtype=bool)
            if folder.endswith("dot"):
                top, left = 40 + 4 * place + 2 * (place % 2), 90 + 2  # even ones on the corner of a cell by rows only
                mask[top + 1 : top + 3, left + 1 : left + 3] = True
            elif folder.endswith("scratch"):
                mask[99 + 8 * place : 101 + 8 * place, 30:200] = True
            pixels[mask] = 250
            path = root / folder / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            if mask.any():
                target = root / folder.replace("test", "ground_truth") / f"{place}_mask.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask.astype(np.uint8) * 255).save(target)
    return root


def trained(root: Path, **options: object) -> Run:
    """Train a small PaDiM and return its run."""
    pixel_size = options.pop("pixel_size", "input")
    center_crop = options.pop("center_crop", None)
    model = small("padim", **({} if center_crop is None else {"center_crop": center_crop}))
    Engine(pixel_size=pixel_size).train(model=model, datamodule=data(root, **options))
    return Run.open(model.run_folder)


def cover_of(run: Run, root: Path) -> np.ndarray:
    """Return of each test image (n, H, W) the share of each 4 x 4 cell that its mask marks."""
    covers = []
    for row in run.scores("test"):
        file = root / "ground_truth" / row.defect / f"{Path(row.image_path).stem}_mask.png"
        mask = np.asarray(Image.open(file)) > 0 if row.label else np.zeros((SIDE, SIDE), dtype=bool)
        covers.append(mask.reshape(INPUT, 4, INPUT, 4).mean((1, 3)))
    return np.array(covers)


@pytest.mark.parametrize("pixel_size", ["input", [64, 64]])
def test_no_defect_vanishes_and_the_record_says_what_the_nearest_pixel_loses(
    tiny_defects: Path, pixel_size: str | list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="defectlab"):
        run = trained(tiny_defects, pixel_size=pixel_size)
    record = run.record
    cover = cover_of(run, tiny_defects)
    anomalous = np.array([row.label == 1 for row in run.scores("test")])
    loss = record.evaluation.mask_loss
    assert loss is not None
    nearest = np.array([one[:, :] for one in _top_left(run, tiny_defects)])
    assert loss.images == loss.regions == int(anomalous.sum())
    assert loss.lost_images == loss.lost_regions == int((~nearest[anomalous].any((1, 2))).sum()) > 0
    assert loss.unseen_images == 0
    maps = np.asarray(run.maps("test"))
    assert loss.nearest["pixel_AUROC"] == pytest.approx(roc_auc_score(nearest.ravel(), maps.ravel()), abs=1e-6)
    assert loss.nearest["pixel_AUPR"] == pytest.approx(average_precision_score(nearest.ravel(), maps.ravel()), abs=1e-5)

    # dots and scratches cover less than half of any cell: the cells of highest cover stand for them
    by_area = np.array([one == one.max() if one.max() else one > 0 for one in cover])
    assert record.metrics["pixel_AUROC"] == pytest.approx(roc_auc_score(by_area.ravel(), maps.ravel()), abs=1e-6)
    assert f"would lose {loss.lost_regions} of {loss.regions} defects" in caplog.text
    sentence = describe_mask_loss(record)
    assert f"drops {loss.lost_regions} of {loss.regions} defects" in sentence
    assert f"pixel_AUPR {loss.nearest['pixel_AUPR']:.3f} (here {record.metrics['pixel_AUPR']:.3f})" in sentence
    assert sentence in write_report([run], run.folder / "r.html").read_text().replace("&#x27;", "'")
    assert evaluate_run(run)["evaluation"].mask_loss == loss  # a later evaluation keeps the counts


def _top_left(run: Run, root: Path) -> list[np.ndarray]:
    masks = []
    for row in run.scores("test"):
        file = root / "ground_truth" / row.defect / f"{Path(row.image_path).stem}_mask.png"
        mask = np.asarray(Image.open(file)) > 0 if row.label else np.zeros((SIDE, SIDE), dtype=bool)
        masks.append(mask[::4, ::4])
    return masks


def test_anomalibs_way_is_there_on_request_and_named(tiny_defects: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = trained(tiny_defects)
    with caplog.at_level(logging.WARNING, logger="defectlab"):
        run = trained(tiny_defects, mask_reduction="nearest")
    assert own.record.run_id != run.record.run_id
    assert run.record.evaluation.mask_reduction == "nearest"
    maps, marks = np.asarray(run.maps("test")), np.array(_top_left(run, tiny_defects))
    assert run.record.metrics["pixel_AUROC"] == pytest.approx(roc_auc_score(marks.ravel(), maps.ravel()), abs=1e-6)
    loss = own.record.evaluation.mask_loss
    assert loss is not None
    assert run.record.metrics["pixel_AUPR"] == loss.nearest["pixel_AUPR"]
    assert "the nearest pixel loses" in caplog.text
    assert describe_grid(own.record) == f"{describe_grid(run.record)}, masks by area"
    assert "mask_reduction area keeps them" in describe_mask_loss(run.record)


def test_records_from_before_the_choice_are_by_the_nearest_pixel(tiny_defects: Path) -> None:
    plain = trained(tiny_defects).record.to_dict()
    del plain["evaluation"]["mask_reduction"], plain["evaluation"]["mask_loss"]
    old = RunRecord.from_dict(plain)
    assert old.evaluation.mask_reduction == "nearest"
    assert describe_grid(old) == "64 x 64"
    assert "data.mask_reduction" not in old.facts
    assert describe_mask_loss(old) == ""


def test_a_mask_that_the_crop_cuts_away_is_counted(tiny_defects: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="defectlab"):
        run = trained(tiny_defects, crop_area=[0, 0, 256, 40])
    loss = run.record.evaluation.mask_loss
    assert loss is not None
    assert (loss.images, loss.regions, loss.unseen_images) == (loss.images, 0, loss.images)
    assert loss.images > 0
    assert "mark only what the model does not see" in caplog.text
    assert "their pixels count as good" in describe_mask_loss(run.record)
