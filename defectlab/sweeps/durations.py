"""Estimates of a training's duration, from recorded runs of the same model."""

import math
from functools import cache
from pathlib import Path
from statistics import median

from defectlab.models.registry import ANOMALIB_MODELS, MODELS, model_info
from defectlab.results.run.run import Run, find_runs
from defectlab.sweeps.configurations import Configuration


class Durations:
    """Estimates of durations from the seconds of recorded runs per epoch, training image and pixel of the input.

    Of the runs of the same model on the same kind of device those count that are most alike: trained on cached features
    where the configuration is, with its backbone, at its size; each as far as there are such. Options of the model are
    not looked at.
    """

    def __init__(self) -> None:
        self._runs = cache(_timed)

    def seconds(self, one: Configuration) -> tuple[float | None, str]:
        """Return the estimated seconds of a training, None without comparable runs, and the source as text."""
        name, device = one.model.model_name, one.engine.device.type
        runs = [
            run
            for run in self._runs(one.engine.results_folder)
            if run.record.experiment.model_name == name and run.record.environment.device.partition(":")[0] == device
        ]
        pixels, backbone = math.prod(one.model.preprocessing.whole_size), one.model.backbone_record["name"]
        for alike in (
            lambda run: not one.takes_features or run.record.sweep is not None,
            lambda run: run.record.backbone.name == backbone,
            lambda run: run.record.preprocessing.pixels == pixels,
        ):
            runs = [run for run in runs if alike(run)] or runs
        if not runs:
            return None, ""
        info, given = model_info(name), one.experiment.trainer.get("max_epochs")
        epochs = info.epochs or given or info.default_epochs
        pace = median(_seconds(run) / _work(run) for run in runs)
        source = f" (as {len(runs)} recorded runs)" if len(runs) > 1 else " (as a recorded run)"
        return pace * epochs * one.datamodule.training_samples * pixels, source


def _timed(folder: Path) -> list[Run]:
    """Return the finished runs under a folder that have durations and amounts of work on record."""
    return [run for run in find_runs(folder) if run.status == "finished" and _seconds(run) > 0 and _work(run) > 0]


def _seconds(run: Run) -> float:
    return sum(run.record.timings.get(stage, 0.0) for stage in ("fit", "validation"))


def _work(run: Run) -> float:
    """Return epochs times training images times pixels of a run; 0 if its record lacks one of them."""
    experiment = run.record.experiment
    info = (MODELS | ANOMALIB_MODELS).get(experiment.model_name)
    epochs = max(map(len, run.record.history.values()), default=0) or (info.epochs if info else None) or 0
    images = sum(run.record.dataset.protocol.counts.get("train", {}).values())
    return epochs * experiment.data.get("passes", 1) * images * run.record.preprocessing.pixels
