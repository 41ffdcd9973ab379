"""Which epoch's weights a training keeps, and when it stops: by a metric of the validation images."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from defectlab.data.folder import Folder
from defectlab.engine.losses import VALIDATION_LOSSES
from defectlab.engine.recorder import MONITORED, Recorder
from defectlab.evaluation.metrics import auroc, f1_max, sort_scores
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, ImageSubset
from defectlab.evaluation.pixel.metrics import pixel_metrics
from defectlab.models.base import BaseDetector
from defectlab.models.registry import model_info
from defectlab.results.evaluate import columns
from defectlab.results.pixel_grid import pixel_labels
from defectlab.results.run.run import Run
from defectlab.results.run.scores import ScoreRow
from defectlab.utils.errors import OptionError, unknown_name
from defectlab.utils.validation import check_whole

logger = logging.getLogger(__name__)

SCORES = {"image_AUROC": auroc, "image_F1Max": f1_max}
PIXELS = ("pixel_AUROC", "pixel_F1Max", "pixel_AUPR", "pixel_AUPRO")
GOOD_LOSS = VALIDATION_LOSSES[0]
MONITORS = (*SCORES, *PIXELS, GOOD_LOSS)
KEEP = ("best", "last")
KEEP_CHECKPOINT = ("all", "weights", "none")


@dataclass(frozen=True)
class CheckpointPolicy:
    """What the engine was asked to keep; None leaves it to the model.

    `monitor`: a metric of the validation images, higher is better (image_AUROC, image_F1Max and, on the model's own
    grid, pixel_AUROC, pixel_F1Max, pixel_AUPR, pixel_AUPRO; F1 at its best threshold), or val_good_loss, lower is
    better. `patience`: so many validations without a better one end the training, as does a
    score of 1. `keep`: weights of the best or of the last epoch; best where something is monitored. `checkpoint`: all
    (a training can go on from it), weights (a third of the size with Adam) or none (removed once tested).
    """

    monitor: str | None = None
    patience: int | None = None
    keep: str | None = None
    checkpoint: str | None = None

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            OptionError: With what is allowed.
        """
        if self.monitor is not None and self.monitor not in MONITORS:
            raise OptionError(f"Engine: {unknown_name('monitor', str(self.monitor), MONITORS)}")
        if self.keep is not None and self.keep not in KEEP:
            raise OptionError(f"Engine: {unknown_name('keep', str(self.keep), KEEP)}")
        if self.checkpoint is not None and self.checkpoint not in KEEP_CHECKPOINT:
            raise OptionError(f"Engine: {unknown_name('keep_checkpoint', str(self.checkpoint), KEEP_CHECKPOINT)}")
        if self.patience is not None:
            check_whole("Engine", "patience", self.patience, low=1)
            if self.monitor is None:
                raise OptionError(f"Engine: patience needs monitor, one of {', '.join(MONITORS)}.")

    def of(self, model: BaseDetector) -> "CheckpointPolicy":
        """Return the choices with the model's own where none was made; one that fits in a single pass monitors nothing.

        Raises:
            OptionError: There is nothing to tell the best epoch by.
        """
        checkpoint = self.checkpoint or ("all" if model.keeps_optimizer else "weights")
        if model_info(model.model_name).epochs is not None:
            if self.monitor is not None:
                logger.info("%s fits in a single pass; monitor=%s is not used", model.name, self.monitor)
            return CheckpointPolicy(checkpoint=checkpoint)
        own = model.monitor if self.keep != "last" else None
        monitor = self.monitor or own
        if self.keep == "best" and monitor is None:
            raise OptionError(f"Engine: keep='best' needs monitor, one of {', '.join(MONITORS)}.")
        return CheckpointPolicy(monitor, self.patience, (self.keep or "best") if monitor else "last", checkpoint)

    def facts(self) -> dict[str, Any]:
        """Return what decides the weights, as trainer options of the record."""
        if self.monitor is None:
            return {}
        return {"monitor": self.monitor, "keep": self.keep} | ({"patience": self.patience} if self.patience else {})

    def check_images(self, model: BaseDetector, datamodule: Folder) -> None:
        """Refuse to monitor what this model and the validation images cannot tell.

        Raises:
            OptionError: With what is missing, and what can be monitored.
        """
        if self.monitor is None:
            return
        lacks = {monitor: _lack(monitor, model, datamodule) for monitor in MONITORS}
        if lacks[self.monitor] is not None:
            can = [monitor for monitor, lack in lacks.items() if lack is None]
            choice = f"What can be monitored: {', '.join(can)}." if can else "Nothing can be monitored: leave it out."
            raise OptionError(f"Engine: monitor={self.monitor!r} needs {lacks[self.monitor]}. {choice}")


def _lack(monitor: str, model: BaseDetector, datamodule: Folder) -> str | None:
    """Say what a metric needs that is not there; None where it can be monitored."""
    entries = datamodule.manifest.split("validation")
    needed = (0,) if monitor == GOOD_LOSS else (1,) if monitor in PIXELS else (0, 1)
    labels = {entry.label for entry in entries}
    if missing := [{0: "good", 1: "anomalous"}[label] for label in needed if label not in labels]:
        return f"{' and '.join(missing)} validation images, and there are none"
    if monitor == GOOD_LOSS and type(model).image_losses is BaseDetector.image_losses:
        return f"a loss of validation images, and {model.name} has no loss of validation images"
    if monitor in PIXELS and not model_info(model.model_name).maps:
        return f"anomaly maps, and {model.name} gives image scores only"
    if monitor in PIXELS and not any(datamodule.manifest.has_mask(entry) for entry in entries):
        return "masks of anomalous validation images, and there are none"
    return None


def monitored_value(monitor: str, run: Run, rows: Sequence[ScoreRow]) -> float:
    """Return a metric of the validation rows, of pixels from the run's maps and masks; NaN where there is none."""
    if monitor in SCORES:
        value = SCORES[monitor](sort_scores(*columns(rows))).value
        return math.nan if value is None else value
    maps, masks = run.maps("validation"), run.packed_masks("validation")
    if maps is None or masks is None:
        return math.nan
    counted = np.flatnonzero(pixel_labels(run, rows) >= 0).tolist()
    value = pixel_metrics(ImageSubset(ArrayImages(maps, masks), counted))[monitor.removeprefix("pixel_")].value
    return math.nan if value is None else value


class BestEpoch(Callback):
    """Follows the monitored metric, stops the training, and holds the weights of the best epoch in memory.

    It must come after the recorder. Of equal values the first one counts as best.
    """

    def __init__(self, keeping: CheckpointPolicy, recorder: Recorder) -> None:
        self.keeping = keeping
        self.recorder = recorder
        self.values: list[tuple[int, float]] = []
        self.best: tuple[int, float] | None = None
        self.stopped: int | None = None
        self._weights: dict[str, torch.Tensor] = {}

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the value of one validated epoch."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        epoch, value = trainer.current_epoch, self._value()
        self.values.append((epoch, value))
        pl_module.log(f"{MONITORED}{self.keeping.monitor}", value)
        if self._is_better(value):
            self.best = (epoch, value)
            if self.keeping.keep == "best":
                state = pl_module.state_dict()
                self._weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        if self.keeping.patience is not None and self.stopped is None:
            since = [found for found, _ in self.values if self.best is None or found > self.best[0]]
            if len(since) >= self.keeping.patience or (not self._is_loss and value >= 1):
                self.stopped = epoch
                trainer.should_stop = True
                logger.info("Stopping after epoch %d: %s", epoch + 1, self._why(value, len(since)))

    def restore(self, model: BaseDetector, last: int) -> int:
        """Give the model the weights of the best epoch, unless the `last` one is that; return the epoch it has now."""
        if self.keeping.keep != "best" or self.best is None or self.best[0] == last or not self._weights:
            return last
        model.load_state_dict(self._weights)
        logger.info(
            "CheckpointPolicy the weights of epoch %d (%s %.6g), not of the last, epoch %d",
            self.best[0] + 1, self.keeping.monitor, self.best[1], last + 1,
        )  # fmt: skip
        self._weights = {}
        return self.best[0]

    def record(self) -> dict[str, Any]:
        """Return what run.json holds under `monitor`; epochs count from 1."""
        return {
            "metric": self.keeping.monitor,
            "keep": self.keeping.keep,
            "patience": self.keeping.patience,
            "best_epoch": None if self.best is None else self.best[0] + 1,
            "best_value": None if self.best is None else self.best[1],
            "stopped_after": None if self.stopped is None else self.stopped + 1,
            "values": {str(epoch + 1): value if math.isfinite(value) else None for epoch, value in self.values},
        }

    def _value(self) -> float:
        if self._is_loss or self.keeping.monitor is None or self.recorder.run is None:
            return self.recorder.validation_losses.get(GOOD_LOSS, math.nan)
        return monitored_value(self.keeping.monitor, self.recorder.run, self.recorder.validated_rows)

    @property
    def _is_loss(self) -> bool:
        return self.keeping.monitor == GOOD_LOSS

    def _is_better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        return value < self.best[1] if self._is_loss else value > self.best[1]

    def _why(self, value: float, since: int) -> str:
        perfect = not self._is_loss and value >= 1
        return f"{self.keeping.monitor} is 1" if perfect else f"no better {self.keeping.monitor} in {since} validations"
