"""The callback that follows a metric of the validation images: it finds the best epoch and ends the training."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from defectlab.engine.checkpoint_policy import IMAGE_MONITORS, LOSS_MONITOR, CheckpointPolicy
from defectlab.engine.recorder import MONITORED, Recorder
from defectlab.evaluation.metrics import sort_scores
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, ImageSubset, maps_problem
from defectlab.evaluation.pixel.metrics import pixel_metrics
from defectlab.models.base import BaseDetector
from defectlab.results.calibration import choosing_rows
from defectlab.results.evaluate import columns
from defectlab.results.pixel_grid import pixel_labels
from defectlab.results.run.category_run import category_runs
from defectlab.results.run.run import Run
from defectlab_runtime.scores import ScoreRow

logger = logging.getLogger(__name__)


class BestEpoch(Callback):
    """Follows the monitored metric, stops the training, and holds the weights of the best epoch in memory.

    It must come after the recorder. Of equal values the first one counts as best.
    """

    def __init__(self, policy: CheckpointPolicy, recorder: Recorder) -> None:
        self.policy = policy
        self.recorder = recorder
        self.values: list[tuple[int, float]] = []
        self.best: tuple[int, float] | None = None
        self.stopped: int | None = None
        self._weights: dict[str, torch.Tensor] = {}

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the metric of a validated training epoch; hold the epoch's weights if the metric is the best one."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        epoch, value = trainer.current_epoch, self._value()
        self.values.append((epoch, value))
        pl_module.log(f"{MONITORED}{self.policy.monitor}", value)
        if self._is_better(value):
            self.best = (epoch, value)
            if self.policy.keep == "best":
                state = pl_module.state_dict()
                self._weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        if self.policy.patience is not None and self.stopped is None:
            since_best = sum(self.best is None or validated > self.best[0] for validated, _ in self.values)
            is_perfect = not self._is_loss and value >= 1
            if since_best >= self.policy.patience or is_perfect:
                self.stopped = epoch
                trainer.should_stop = True
                monitor = self.policy.monitor
                why = f"{monitor} is 1" if is_perfect else f"no better {monitor} in {since_best} validations"
                logger.info("Stopping after epoch %d: %s", epoch + 1, why)

    def restore(self, model: BaseDetector, last: int) -> int:
        """Load the weights of the best epoch into the model, unless it is the `last` one; return the model's epoch."""
        if self.policy.keep != "best" or self.best is None or self.best[0] == last or not self._weights:
            return last
        model.load_state_dict(self._weights)
        logger.info(
            "Keeping the weights of epoch %d (%s %.6g), not of the last, epoch %d",
            self.best[0] + 1, self.policy.monitor, self.best[1], last + 1,
        )  # fmt: skip
        self._weights = {}
        return self.best[0]

    def record(self) -> dict[str, Any]:
        """Return the data of run.json's entry `monitor`; epochs count from 1."""
        return {
            "metric": self.policy.monitor,
            "keep": self.policy.keep,
            "patience": self.policy.patience,
            "best_epoch": None if self.best is None else self.best[0] + 1,
            "best_value": None if self.best is None else self.best[1],
            "stopped_after": None if self.stopped is None else self.stopped + 1,
            "values": {str(epoch + 1): value if math.isfinite(value) else None for epoch, value in self.values},
        }

    def _value(self) -> float:
        if self._is_loss or self.recorder.run is None:
            return self.recorder.validation_losses.get(LOSS_MONITOR, math.nan)
        return monitored_value(str(self.policy.monitor), self.recorder.run, self.recorder.validation_rows)

    @property
    def _is_loss(self) -> bool:
        return self.policy.monitor == LOSS_MONITOR

    def _is_better(self, value: float) -> bool:
        if self.best is None or math.isnan(value):
            return not math.isnan(value)
        return value < self.best[1] if self._is_loss else value > self.best[1]


def monitored_value(monitor: str, run: Run, rows: Sequence[ScoreRow]) -> float:
    """Return a metric of the validation rows, of pixels from the run's maps and masks; NaN where there is none.

    Images held back for calibration are left out. Of several categories it is the mean over them.
    """
    if run.record.categories:
        each = [monitored_value(monitor, one, one.scores("validation")) for one in category_runs(run)]
        return float(np.mean(each))
    rows = choosing_rows(run.record, rows)
    if monitor in IMAGE_MONITORS:
        value = IMAGE_MONITORS[monitor](sort_scores(*columns(rows))).value
    else:
        maps, masks = run.maps("validation"), run.packed_masks("validation")
        labels = pixel_labels(run, rows)
        if maps is None or masks is None or maps_problem(maps, labels):
            return math.nan
        counted = np.flatnonzero(labels >= 0).tolist()
        metrics = pixel_metrics(ImageSubset(ArrayImages(maps, masks), counted))
        value = metrics[monitor.removeprefix("pixel_")].value
    return math.nan if value is None else value
