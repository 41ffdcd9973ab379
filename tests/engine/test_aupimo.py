"""AUPIMO is anomalib's own, kept with the run, and where it cannot be computed the record says why."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.metrics.pimo.pimo import _AUPIMO
from helpers.datasets import make_parts
from helpers.models import data, small

from defectlab import Engine, Experiment
from defectlab.engine.aupimo import aupimo
from defectlab.evaluation.metrics import Metric
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, ImageSubset
from defectlab.evaluation.threshold import RuleOptions
from defectlab.results.rethreshold import set_threshold
from defectlab.results.run.run import Run
from defectlab_runtime.errors import OptionError


def image_set() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    masks = np.zeros((12, 160, 160), dtype=bool)
    masks[::2, 30:60, 40:80] = True
    return (draw.normal(size=masks.shape) + 3 * masks).astype(np.float32), masks


def test_it_is_anomalibs() -> None:
    maps, masks = image_set()
    metric = _AUPIMO(num_thresholds=30_000)
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks))
    found = aupimo(ArrayImages(maps, masks), thresholds=30_000)
    assert found.value == float(metric.compute())
    assert 0 < found.value < 1


def test_what_cannot_be_computed_says_why() -> None:
    maps, masks = image_set()
    images = ArrayImages(maps, masks)
    assert "NORMAL" in str(aupimo(ImageSubset(images, [0, 2])).reason)
    assert "ANOMALOUS" in str(aupimo(ImageSubset(images, [1, 3])).reason)
    assert "finite" in str(aupimo(ArrayImages(np.where(masks, np.inf, maps).astype(np.float32), masks)).reason)
    assert "GiB" in str(aupimo(ImageSubset(images, [0, 1] * 1000)).reason)
    ragged = ImageSubset(images, [0, 1])
    ragged.__class__ = type("Ragged", (ImageSubset,), {"sizes": [(128, 128), (64, 64)]})
    assert "one size" in str(aupimo(ragged).reason)


def test_the_option_is_checked() -> None:
    with pytest.raises(OptionError, match="aupimo"):
        Experiment.from_dict({"data": {"root": "x"}, "model": {"name": "padim"}, "evaluation": {"aupimo": "yes"}})


def test_a_run_keeps_it_through_a_new_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "defectlab.engine.run_writer.compute_aupimo", lambda images: Metric(0.25)
    )  # anomalib's takes half a minute
    model = small("padim")
    Engine(aupimo=True).train(model=model, datamodule=data(make_parts(tmp_path / "parts", good=6, bad=6)))
    run = Run.open(model.run_folder)
    assert run.record.experiment.evaluation["aupimo"] is True
    assert run.record.metrics["pixel_AUPIMO"] == 0.25
    set_threshold(run, "quantile", RuleOptions(false_alarm_rate=0.3), ["pixel"])
    assert Run.open(run.folder).record.metrics["pixel_AUPIMO"] == 0.25
    run.update(metrics={**run.record.metrics, "pixel_AUPIMO": None}, metric_reasons={"pixel_AUPIMO": "because"})
    set_threshold(run, "quantile", RuleOptions(false_alarm_rate=0.4), ["pixel"])
    again = Run.open(run.folder).record
    assert again.metrics["pixel_AUPIMO"] is None
    assert again.metric_reasons["pixel_AUPIMO"] == "because"
