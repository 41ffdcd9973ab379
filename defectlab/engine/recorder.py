"""The callback that writes what a run measured: raw scores, raw maps, losses, seconds."""

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

from defectlab.data.datasets import ManifestDataset
from defectlab.data.manifest.manifest import Entry, Manifest
from defectlab.engine.losses import VALIDATION_LOSSES, LossHistory, StepClock, ValidationLosses
from defectlab.engine.run_finish import record_thresholds
from defectlab.engine.trackers.tracker import RunTracker
from defectlab.models.base import BaseDetector
from defectlab.models.processors import RawPostProcessor
from defectlab.results.run.arrays import ArrayWriter, pack_masks
from defectlab.results.run.run import Run
from defectlab.results.run.scores import ScoreRow
from defectlab.utils import paths

logger = logging.getLogger(__name__)

EPOCH_LINES = 5  # of a training of many epochs; run.json has every loss
MONITORED = "monitored_"  # put before the metric that decides which epoch is kept, where trackers copy it


class SplitCollector:
    """Rows, maps and masks of one split, as the batches come."""

    def __init__(self, run: Run, split: str, entries: Sequence[Entry], manifest: Manifest) -> None:
        self.run = run
        self.split = split
        self.entries = {str(manifest.absolute(entry)): entry for entry in entries}
        self.rows: list[ScoreRow] = []
        self._maps: ArrayWriter | None = None
        self._masks: ArrayWriter | None = None

    def add(self, batch: Any) -> None:
        """Take one batch with raw predictions; the post-processor has not seen it yet."""
        scores = batch.pred_score.detach().flatten().cpu().numpy()
        for path, score in zip(batch.image_path, scores, strict=True):
            entry = self.entries[path]
            self.rows.append(ScoreRow(paths.relative(path), self.split, entry.defect, entry.label, float(score), -1))
        if batch.anomaly_map is None:
            return
        maps = batch.anomaly_map.detach().float().cpu().numpy()
        maps = maps.reshape(len(scores), *maps.shape[-2:])  # (B, 1, H, W) or (B, H, W) -> (B, H, W)
        if self._maps is None:
            self._maps = ArrayWriter(self.run.maps_path(self.split), len(self.entries), maps.shape[1:], "float32")
        self._maps.append(maps)
        if batch.gt_mask is not None:
            packed = pack_masks(batch.gt_mask.cpu().numpy().reshape(maps.shape) > 0)
            if self._masks is None:
                path = self.run.masks_path(self.split)
                self._masks = ArrayWriter(path, len(self.entries), packed.shape[1:], "uint8")
            self._masks.append(packed)

    def close(self) -> None:
        """Put maps and masks in place."""
        for writer in (self._maps, self._masks):
            if writer:
                writer.close()

    def discard(self) -> None:
        """Leave nothing of an unfinished split."""
        for writer in (self._maps, self._masks):
            if writer:
                writer.discard()


def _data(trainer: Trainer) -> Any:
    """Return the trainer's datamodule, which Lightning attaches without declaring it."""
    return getattr(trainer, "datamodule", None)


class Recorder(Callback):
    """Records validation and test passes of one run, and sets its thresholds on the model.

    Callbacks given to the engine run before the model's own, so what arrives here is raw.
    """

    def __init__(self, run: Run | None = None, trackers: Sequence[RunTracker] = ()) -> None:
        self.run = run
        self.trackers = trackers
        self.exception: BaseException | None = None
        self.history = LossHistory()
        self.seconds: dict[str, float] = defaultdict(float)
        self._collector: SplitCollector | None = None
        self._losses = ValidationLosses()
        self._validated: dict[str, float] = {}
        self.validated_rows: list[ScoreRow] = []  # of the last validation
        self.keeps_epoch_losses = True  # a validation after the training is of its last epoch
        self._started: dict[str, float] = {}
        self._steps = StepClock()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the fit, and the trackers' copies."""
        self._started["fit"] = time.perf_counter()
        if self.run is not None and self.trackers:
            defects = {entry.defect for entry in _data(trainer).manifest.split("validation") if entry.label == 1}
            for tracker in self.trackers:
                tracker.start_training(self.run, defects)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it: validation that ran in between is counted apart."""
        self.seconds["fit"] = time.perf_counter() - self._started["fit"] - self.seconds["validation"]
        for tracker in self.trackers:
            tracker.end_stage()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of an epoch's steps."""
        self._steps = StepClock()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The images are there."""
        self._steps.started()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step is done; trackers get its loss."""
        self._steps.ended()
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        for tracker in self.trackers:
            tracker.log_batch(loss, len(batch.image))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the epoch's mean losses, and put them on record: curves can be seen while the training runs."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.endswith("loss")}
        # the losses of validation may be of an earlier epoch, and so may a copy of one that is monitored
        trained = {name: value for name, value in logged.items() if name not in VALIDATION_LOSSES.values()}
        losses = {name: value for name, value in trained.items() if not name.startswith(MONITORED)} | self._validated
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        for tracker in self.trackers:
            tracker.log_epoch(logged if self._validated else trained, epoch)
        self._validated = {}
        self.history.add(losses)
        if losses and (epoch == 1 or epoch % max(1, epochs // EPOCH_LINES) == 0):
            said = ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
            rates = ", ".join(f"lr {group['lr']:.3g}" for one in trainer.optimizers for group in one.param_groups[:1])
            logger.info("Epoch %d of %d: %s, %s, %s", epoch, epochs, said, rates, self._steps.words())
        if losses and self.run is not None:
            self.run.update(history=self.history.record())

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to collect; a memory-bank model has fitted by now."""
        self._started["validation"] = time.perf_counter()
        self._losses = ValidationLosses()
        self._begin(trainer, "validation")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect one batch, and its losses where the model has them."""
        self._collect(outputs)
        losses = pl_module.image_losses(outputs) if isinstance(pl_module, BaseDetector) else None
        if losses is not None and self._collector is not None:
            entries = self._collector.entries
            self._losses.add(losses, [entries[path].label for path in outputs.image_path])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the thresholds and put them into model and record, before the checkpoint is written."""
        collector, run = self._finish("validation")
        if collector is None or run is None:
            return
        self.validated_rows = collector.rows
        by = pl_module.default_rule if isinstance(pl_module, BaseDetector) else None
        record_thresholds(run, collector.rows, _data(trainer).manifest, by, trainer.current_epoch)
        set_decisions(pl_module, run)
        self._keep_losses(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The record's thresholds decide, not the checkpoint's copy."""
        self._set_thresholds(pl_module)

    on_predict_start = on_test_start

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to collect."""
        self._started["test"] = time.perf_counter()
        self._begin(trainer, "test")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect one batch."""
        self._collect(outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the test rows below the validation's."""
        collector, run = self._finish("test")
        if collector is not None and run is not None:
            run.write_scores([*run.scores("validation"), *collector.rows])

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what happened, for the record, and leave no half-written map."""
        self.exception = exception
        if self._collector:
            self._collector.discard()
            self._collector = None
        for tracker in self.trackers:
            tracker.end_stage(failed=True)

    @property
    def validation_losses(self) -> dict[str, float]:
        """Mean losses of the last validation, by name."""
        return self._losses.means()

    def finite_history(self) -> dict[str, list[float | None]]:
        """Losses by epoch; one that is not finite is None, with a warning."""
        self.history.warn()
        return self.history.record()

    def _keep_losses(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the pass's losses for its epoch; in training Lightning's callbacks and loggers get them too."""
        means = self._losses.means()
        if trainer.state.fn != TrainerFn.FITTING:
            if self.keeps_epoch_losses:
                self.history.amend(means)
        elif means:
            self._validated = means
            module.log_dict(means, prog_bar=True)

    def _begin(self, trainer: Trainer, split: str) -> None:
        data = _data(trainer)
        if self.run is None or data is None or trainer.sanity_checking:
            return
        dataset: ManifestDataset = data.val_data if split == "validation" else data.test_data
        self._collector = SplitCollector(self.run, split, dataset.entries, data.manifest)

    def _collect(self, outputs: Any) -> None:
        if self._collector is not None:
            self._collector.add(outputs)

    def _finish(self, split: str) -> tuple[SplitCollector | None, Run | None]:
        collector, self._collector = self._collector, None
        if collector is not None:
            collector.close()
            earlier = self.seconds[split] if split == "validation" else 0.0  # one validation per epoch adds up
            self.seconds[split] = earlier + time.perf_counter() - self._started[split]
        return collector, self.run

    def _set_thresholds(self, module: LightningModule) -> None:
        if self.run is not None:
            _set_thresholds(module, self.run)


def set_decisions(module: LightningModule, run: Run) -> None:
    """Set the thresholds of a run, and the ranges of its validation scores and maps, on a model."""
    scores = np.array([row.score for row in run.scores("validation")])
    if isinstance(module.post_processor, RawPostProcessor) and scores.size:
        maps = run.maps("validation")
        image_range = (float(scores.min()), float(scores.max()))
        module.post_processor.set_ranges(
            image_range, image_range if maps is None else (float(maps.min()), float(maps.max()))
        )
    _set_thresholds(module, run)


def _set_thresholds(module: LightningModule, run: Run) -> None:
    thresholds = run.record.get("thresholds")
    if thresholds and isinstance(module.post_processor, RawPostProcessor):
        with torch.no_grad():
            module.post_processor.set_thresholds(thresholds["image"]["value"], thresholds["pixel"]["value"])
