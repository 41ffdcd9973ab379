"""How long a training will take, from runs of the same model on record."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from defectlab.models.registry import MODELS, OTHERS, model_info
from defectlab.results.run.run import Run, find_runs
from defectlab.sweeps.configurations import Configuration


class Durations:
    """Estimates by pixels seen: seconds of recorded runs for each epoch, training image and pixel of the input.

    Of the runs of the same model on the same kind of device those count that are most alike: trained on cached features
    where the configuration is, with its backbone, at its size; each as far as there are such. Options of the model are
    not looked at.
    """

    def __init__(self) -> None:
        self._runs = cache(_timed)

    def seconds(self, one: Configuration) -> tuple[float | None, str]:
        """Return an estimate, None without such runs, and in words what it is from."""
        runs = [
            run
            for run in self._runs(one.engine.results_folder)
            if _model(run) == one.model.model_name and _device(run) == one.engine.device.type
        ]
        size, backbone = _pixels(one.model.preprocessing.to_dict()), one.model.backbone_record["name"]
        for alike in (
            lambda run: not one.takes_features or bool(run.record.get("sweep")),
            lambda run: run.record["backbone"]["name"] == backbone,
            lambda run: _pixels(run.record["preprocessing"]) == size,
        ):
            runs = [run for run in runs if alike(run)] or runs
        if not runs:
            return None, ""
        info, given = model_info(one.model.model_name), one.experiment.trainer.get("max_epochs")
        epochs = info.epochs or given or info.default_epochs
        pace = median(_seconds(run) / _work(run) for run in runs)
        source = f" (as {len(runs)} recorded runs)" if len(runs) > 1 else " (as a recorded run)"
        return pace * epochs * one.datamodule.training_views * size, source


def _timed(folder: Path) -> list[Run]:
    """Return the finished runs under a folder that say how long they took."""
    return [run for run in find_runs(folder) if run.status == "finished" and _seconds(run) > 0 and _work(run) > 0]


def _seconds(run: Run) -> float:
    return sum(run.record.get("timings", {}).get(stage, 0.0) for stage in ("fit", "validation"))


def _work(run: Run) -> float:
    """Return epochs times training images times pixels of a run; 0 where its record does not say."""
    info = (MODELS | OTHERS).get(_model(run))
    history: Mapping[str, list[Any]] = run.record.get("history") or {}
    epochs = max(map(len, history.values()), default=0) or (info.epochs if info else None) or 0
    counts = run.record.get("dataset", {}).get("protocol", {}).get("counts", {})
    passes = run.record.get("experiment", {}).get("data", {}).get("passes", 1)
    return epochs * passes * sum(counts.get("train", {}).values()) * _pixels(run.record.get("preprocessing") or {})


def _model(run: Run) -> str:
    return str(run.record.get("experiment", {}).get("model", {}).get("name"))


def _device(run: Run) -> str:
    return str(run.record.get("environment", {}).get("device")).partition(":")[0]


def _pixels(preprocessing: Mapping[str, Any]) -> int:
    """Return how many pixels an image has for a model that prepares it so."""
    height, width = (preprocessing.get("tiling") or {}).get("image_size") or preprocessing.get("size") or (0, 0)
    return height * width
