"""Which epoch's weights are kept, when a training stops, and which checkpoints stay."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import data, small
from lightning.pytorch.callbacks import Callback

from defectlab import Detector, Engine, LinearVae, SmallConvVae
from defectlab.engine.best_epoch import BestEpoch
from defectlab.evaluation.pixel.metrics import aupro
from defectlab.models.registry import model_class
from defectlab.results.run.run import Run, find_runs
from defectlab_runtime.errors import InputError, OptionError

SIZE = (16, 16)


class Weights(Callback):
    """The weights of every validated epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, torch.Tensor]] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        self.epochs.append({name: tensor.clone() for name, tensor in pl_module.model.state_dict().items()})


def fitted(
    root: Path, epochs: int, model: Any = None, test: bool = True, calibration_share: float = 0.0, **options: Any
) -> tuple[Any, Run]:
    model = model or SmallConvVae(latent_dim=2, image_size=SIZE, lr=3e-3)
    images = data(root, train_batch_size=4, eval_batch_size=4, calibration_share=calibration_share)
    engine = Engine(max_epochs=epochs, enable_progress_bar=False, **options)
    (engine.train if test else engine.fit)(model=model, datamodule=images)
    return model, Run.open(model.run_folder)


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    left = list(values)
    monkeypatch.setattr(BestEpoch, "_value", lambda _: left.pop(0))


@pytest.mark.row("3.19")
def test_the_best_epoch_is_kept_in_memory_checkpoint_and_record(parts: Path, monkeypatch: pytest.MonkeyPatch):
    scripted(monkeypatch, [0.5, 0.9, 0.7, 0.9])
    weights = Weights()
    model, run = fitted(parts, 4, monitor="image_AUROC", callbacks=[weights])
    assert run.record.monitor.to_dict() == {
        "metric": "image_AUROC", "keep": "best", "patience": None, "best_epoch": 2, "best_value": 0.9,
        "stopped_after": None, "values": {"1": 0.5, "2": 0.9, "3": 0.7, "4": 0.9},
    }  # fmt: skip
    second, last = weights.epochs[1], weights.epochs[3]
    assert all(torch.equal(tensor, second[name]) for name, tensor in model.model.state_dict().items())
    assert not all(torch.equal(tensor, last[name]) for name, tensor in second.items())
    detector = Detector.load(run.folder)
    for split in ("validation", "test"):
        rows = run.scores(split)
        again = [found.score for found in detector.predict([row.image_path for row in rows])]
        assert again == pytest.approx([row.score for row in rows], rel=1e-5)
    good = [row.score for row in run.scores("validation") if row.label == 0]
    assert run.record.history["val_good_loss"][1] == pytest.approx(np.mean(good), rel=1e-6)
    assert run.record.validation_epoch == 1
    assert [len(curve) for curve in run.record.history.values()] == [4, 4, 4]


@pytest.mark.row("3.19")
@pytest.mark.parametrize(
    ("values", "options", "epochs", "best"),
    [
        ([0.5, 0.6, 0.6, 0.5, 0.4], {"patience": 2}, 4, 2),
        ([0.5, 1.0, 0.4], {"patience": 5}, 2, 2),
        ([float("nan"), float("nan"), 0.4], {"patience": 2, "keep": "last"}, 2, None),
    ],
)
def test_patience_and_a_perfect_score_end_a_training(
    parts: Path, monkeypatch: pytest.MonkeyPatch, values: list[float], options: dict, epochs: int, best: int | None
):
    scripted(monkeypatch, values)
    _, run = fitted(parts, 8, test=False, monitor="image_F1Max", **options)
    assert len(run.record.history["train_loss"]) == epochs
    assert run.record.monitor.stopped_after == epochs
    assert run.record.monitor.best_epoch == best


def test_the_values_are_those_of_the_validation_images(parts: Path):
    from sklearn.metrics import roc_auc_score

    _, run = fitted(parts, 1, test=False, monitor="image_AUROC")
    rows = run.scores("validation")
    expected = roc_auc_score([row.label for row in rows], [row.score for row in rows])
    assert run.record.monitor.values == {"1": pytest.approx(expected)}
    assert run.record.experiment.trainer["monitor"] == "image_AUROC"
    other, _ = fitted(parts, 1, test=False)
    assert len(find_runs()) == 2, "which epoch is kept makes another experiment"
    assert other.run_folder != run.folder


@pytest.mark.row("3.19")
@pytest.mark.parametrize("monitor", ["pixel_AUROC", "pixel_AUPR", "pixel_AUPRO", "pixel_F1Max"])
def test_pixel_values_are_those_of_the_validation_maps_and_masks(parts: Path, monitor: str):
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    _, run = fitted(parts, 2, test=False, monitor=monitor)
    maps, masks = run.maps("validation"), run.masks("validation")
    assert maps is not None
    assert masks is not None
    assert masks.any()
    truth, found = masks.ravel(), maps.ravel()  # of the last epoch, or of the best one, validated again
    if monitor == "pixel_F1Max":
        precision, recall, _ = precision_recall_curve(truth, found)
        expected = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    elif monitor == "pixel_AUPRO":
        expected = aupro(np.asarray(maps), masks).value
    else:
        expected = (roc_auc_score if monitor == "pixel_AUROC" else average_precision_score)(truth, found)
    assert run.record.monitor.best_value == pytest.approx(expected, abs=1e-6)
    assert run.record.monitor.best_value == max(run.record.monitor.values.values())
    assert run.record.experiment.trainer["monitor"] == monitor


def test_images_held_back_for_calibration_choose_no_epoch(parts: Path):
    from sklearn.metrics import roc_auc_score

    _, run = fitted(parts, 1, test=False, monitor="image_AUROC", calibration_share=0.5)
    rows, held_back = run.scores("validation"), set(run.record.dataset.calibration)
    good = [row for row in rows if row.label == 0]
    assert len(held_back) == len(good) // 2 > 0
    assert held_back < {row.image_path for row in good}
    assert run.record.dataset.protocol.calibration_share == 0.5
    used = [row for row in rows if row.image_path not in held_back]
    expected = roc_auc_score([row.label for row in used], [row.score for row in used])
    assert run.record.monitor.values == {"1": pytest.approx(expected)}
    # this model's score is its loss
    loss = np.mean([row.score for row in used if row.label == 0])
    assert run.record.history["val_good_loss"] == [pytest.approx(loss, rel=1e-5)]
    bad = np.mean([row.score for row in used if row.label == 1])
    assert run.record.thresholds.image.rule == "mean_of_means"
    assert run.record.thresholds.image.value == pytest.approx((loss + bad) / 2)


def test_the_linear_autoencoder_keeps_its_best_epoch_without_the_optimiser(parts: Path):
    model = LinearVae(latent_dim=2, hidden=[16, 8], image_size=SIZE, lr=0.1)
    _, run = fitted(parts, 4, model, test=False)
    losses = run.record.history["val_good_loss"]
    assert run.record.monitor.best_epoch == int(np.argmin(losses)) + 1
    assert run.record.monitor.best_value == pytest.approx(min(losses))
    assert "optimizer_states" not in torch.load(run.checkpoint, weights_only=True)
    again = LinearVae(latent_dim=2, hidden=[16, 8], image_size=SIZE, lr=0.1)
    with pytest.raises(InputError, match="keep_checkpoint='all'"):
        Engine(max_epochs=5).fit(model=again, datamodule=data(parts), ckpt_path=run.checkpoint)
    _, whole = fitted(parts, 1, again, test=False, keep="last", keep_checkpoint="all")
    assert "monitor" not in whole.record
    assert "optimizer_states" in torch.load(whole.checkpoint, weights_only=True)


def test_a_checkpoint_can_be_left_out(parts: Path):
    model, run = fitted(parts, 1, keep_checkpoint="none")
    assert run.status == "finished"
    assert not list(run.folder.rglob("*.ckpt"))
    with pytest.raises(InputError, match="has no checkpoint"):
        Detector.load(run.folder)
    assert Detector(model, None, None).predict(run.scores("test")[0].image_path)[0].score > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor": "image_AUROK"}, "Did you mean 'image_AUROC'"),
        ({"patience": 3}, "patience needs monitor"),
        ({"monitor": "image_AUROC", "patience": 0}, "patience must be a whole number"),
        ({"keep": "beast"}, "Did you mean 'best'"),
        ({"keep_checkpoint": "no"}, "Available: all, weights, none"),
        ({"find_batch_size": "no"}, "find_batch_size must be true or false"),
        ({"patiense": 3}, "Did you mean 'patience'"),
    ],
)
def test_options_are_checked_at_once(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        Engine(**options)


def test_what_cannot_be_monitored_is_refused_before_training(parts: Path, tmp_path: Path):
    good = make_parts(tmp_path / "good", bad=0)
    bare = make_parts(tmp_path / "bare", train=2, masks=False)
    losses = "What can be monitored: image_AUROC, image_F1Max, val_good_loss"
    for root, options, model, message in (
        (good, {"monitor": "image_AUROC"}, None, "needs anomalous validation images"),
        (bare, {"monitor": "pixel_AUROC"}, None, f"needs masks of anomalous validation images.*{losses}"),
        (parts, {"monitor": "pixel_AUPRO"}, model_class("ganomaly")(image_size=64), "gives image scores only"),
        (parts, {"keep": "best"}, None, "keep='best' needs monitor"),
        (parts, {"monitor": "val_good_loss"}, small("fastflow"), "has no loss of validation images"),
    ):
        with pytest.raises(OptionError, match=message):
            fitted(root, 1, model, **options)
    assert not find_runs()
