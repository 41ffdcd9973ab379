"""The callback that passes Lightning's results to the run's writer: raw scores and maps, losses, durations."""

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from defectlab.engine.losses import VALIDATION_LOSSES, LossHistory, ValidationLosses
from defectlab.engine.run_writer import RunWriter
from defectlab.engine.split_writer import SplitWriter
from defectlab.engine.step_clock import StepClock
from defectlab.engine.trackers.tracker import RunTracker
from defectlab.models.base import BaseDetector
from defectlab.models.checkpoint_thresholds import stored_thresholds
from defectlab.models.processors import RawPostProcessor
from defectlab.results.run.run import Run
from defectlab_runtime.scores import ScoreRow

logger = logging.getLogger(__name__)

EPOCH_LINES = 5  # number of logged epochs of a long training; run.json has every loss
MONITORED = "monitored_"  # prefix of the metric that decides which epoch is best, for Lightning's loggers


class Recorder(Callback):
    """Records training, validation and test of one run, and sets the run's thresholds on the model.

    Callbacks given to the engine run before the model's own, so scores and maps that arrive here are raw.
    """

    def __init__(self, writer: RunWriter | None = None) -> None:
        self.writer = writer
        self.exception: BaseException | None = None
        self.history = LossHistory()
        self.seconds: dict[str, float] = defaultdict(float)  # by stage; one validation per epoch adds up
        self.validation_rows: list[ScoreRow] = []  # of the last validation
        self.weights_are_last = True  # a validation after the training is of its last epoch
        self._split: SplitWriter | None = None
        self._losses = ValidationLosses()
        self._epoch_validation: dict[str, float] = {}  # losses of the validation in this training epoch
        self._started: dict[str, float] = {}
        self._steps = StepClock()

    @property
    def run(self) -> Run | None:
        """The run that is recorded, None without a writer."""
        return None if self.writer is None else self.writer.run

    @property
    def validation_losses(self) -> dict[str, float]:
        """Mean losses of the last validation, by name."""
        return self._losses.means()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the training, and the trackers' copies."""
        self._started["fit"] = time.perf_counter()
        if self.writer is not None:
            validation = _datamodule(trainer).manifest.split("validation")
            for tracker in self.writer.trackers:
                tracker.start_training(self.writer.run, {entry.defect for entry in validation if entry.label == 1})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of the training, without the validation in between, and finish the trackers' copies."""
        self.seconds["fit"] = time.perf_counter() - self._started["fit"] - self.seconds["validation"]
        for tracker in self._trackers:
            tracker.end_stage()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of an epoch's steps."""
        self._steps = StepClock()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Time the loading of a batch."""
        self._steps.batch_loaded()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Time one training step and pass the step's loss to the trackers."""
        self._steps.step_done()
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        for tracker in self._trackers:
            tracker.log_batch(loss, len(batch.image))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record an epoch's mean losses, so that curves can be seen while the training runs; trackers get them too."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.endswith("loss")}
        # the losses of validation may be of an earlier epoch, and so may a copy of one that is monitored
        trained = {name: value for name, value in logged.items() if name not in VALIDATION_LOSSES.values()}
        losses = {name: value for name, value in trained.items() if not name.startswith(MONITORED)}
        losses |= self._epoch_validation
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        for tracker in self._trackers:
            tracker.log_epoch(logged if self._epoch_validation else trained, epoch)
        self._epoch_validation = {}
        self.history.add(losses)
        if losses and (epoch == 1 or epoch % max(1, epochs // EPOCH_LINES) == 0):
            values = ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
            rates = ", ".join(f"lr {group['lr']:.3g}" for one in trainer.optimizers for group in one.param_groups[:1])
            logger.info("Epoch %d of %d: %s, %s, %s", epoch, epochs, values, rates, self._steps.summary())
        if losses and self.run is not None:
            self.run.update(history=self.history.record())

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to collect validation results; a memory-bank model is fitted by then."""
        self._losses = ValidationLosses()
        self._begin(trainer, "validation")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Collect one validation batch, with the losses of its images where the model computes validation losses."""
        self._add(outputs)
        losses = pl_module.image_losses(outputs) if isinstance(pl_module, BaseDetector) else None
        if losses is not None and self._split is not None:
            entries = [self._split.entries[path] for path in outputs.image_path]
            chooses = self._split.manifest.chooses
            self._losses.add(losses, [entry.label if chooses(entry) else -1 for entry in entries])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the thresholds and put them into model and record, before the checkpoint is written.

        The losses belong to this training epoch; in training Lightning's callbacks and loggers get them too.
        """
        rows = self._end("validation")
        if rows is None or self.writer is None:
            return
        self.validation_rows = rows
        rule = pl_module.default_rule if isinstance(pl_module, BaseDetector) else None
        self.writer.write_validation(rows, _datamodule(trainer).manifest, rule, trainer.current_epoch)
        set_thresholds(pl_module, self.writer.run)
        losses = self.validation_losses
        if trainer.state.fn == TrainerFn.FITTING and losses:
            self._epoch_validation = losses
            pl_module.log_dict(losses, prog_bar=True)
        elif trainer.state.fn != TrainerFn.FITTING and self.weights_are_last:
            self.history.amend(losses)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the recorded thresholds on the model, which take precedence over the checkpoint's copy."""
        if self.run is not None:
            _set_threshold_values(pl_module, self.run)

    on_predict_start = on_test_start

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to collect the rows, maps and masks of the test images."""
        self._begin(trainer, "test")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Collect scores, maps and masks of one test batch."""
        self._add(outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the scores of all test images to the run folder."""
        rows = self._end("test")
        if rows is not None and self.writer is not None:
            self.writer.write_test(rows)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Store the exception for the record, discard unfinished maps, and end the trackers' copies as failed."""
        self.exception = exception
        if self._split:
            self._split.discard()
            self._split = None
        for tracker in self._trackers:
            tracker.end_stage(failed=True)

    @property
    def _trackers(self) -> Sequence[RunTracker]:
        return () if self.writer is None else self.writer.trackers

    def _begin(self, trainer: Trainer, split: str) -> None:
        self._started[split] = time.perf_counter()
        if self.writer is not None and _datamodule(trainer) is not None and not trainer.sanity_checking:
            self._split = SplitWriter(self.writer.run, split, _datamodule(trainer).manifest)

    def _add(self, outputs: Any) -> None:
        if self._split is not None:
            self._split.add(outputs)

    def _end(self, split: str) -> list[ScoreRow] | None:
        """Complete a split's maps and masks and return its rows; None if nothing was collected."""
        writer, self._split = self._split, None
        if writer is None:
            return None
        writer.close()
        self.seconds[split] += time.perf_counter() - self._started[split]
        return writer.rows


def set_thresholds(module: LightningModule, run: Run) -> None:
    """Set the thresholds of a run, and the ranges of its validation scores and maps, on a model."""
    scores = np.array([row.score for row in run.scores("validation")])
    if isinstance(module.post_processor, RawPostProcessor) and scores.size:
        maps = run.maps("validation")
        image_range = (float(scores.min()), float(scores.max()))
        pixel_range = image_range if maps is None else (float(maps.min()), float(maps.max()))
        module.post_processor.set_ranges(image_range, pixel_range)
    _set_threshold_values(module, run)


def _set_threshold_values(module: LightningModule, run: Run) -> None:
    thresholds = run.record.thresholds
    if thresholds.recorded and isinstance(module.post_processor, RawPostProcessor):
        with torch.no_grad():
            module.post_processor.set_thresholds(
                thresholds.image.value, thresholds.pixel.value, stored_thresholds(thresholds).get("categories")
            )


def _datamodule(trainer: Trainer) -> Any:
    """Return the trainer's datamodule, which Lightning attaches without declaring it."""
    return getattr(trainer, "datamodule", None)
