"""One bar for each stage of a run, with the time that remains."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from defectlab.utils.progress import Bar


class StageBars(ProgressBar):
    """Lightning's progress bar, but one for the whole training instead of one an epoch, and nothing left over.

    Being a `ProgressBar` it takes the place of Lightning's own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bars: dict[str, Bar] = {}
        self._done: dict[str, int] = {}
        self._enabled = True

    def disable(self) -> None:
        """Show nothing, on all processes but the first of several."""
        self._enabled = False

    def enable(self) -> None:
        """Show bars."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the training's bar."""
        self._open("Training", self._train_total(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move it."""
        epochs = trainer.max_epochs or 1
        label = f"Training, epoch {trainer.current_epoch + 1} of {epochs}" if epochs > 1 else None
        total = self._train_total(trainer)
        done = trainer.current_epoch * int(self.total_train_batches) + batch_idx + 1
        self._move("Training", total, done, label)
        if done == total:  # what a memory bank does after its last batch has a bar of its own
            self._shut("Training")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take away what is left."""
        self._shut()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the validation's bar."""
        self._open("Validation", self.total_val_batches)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move it."""
        self._move("Validation", self.total_val_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it away."""
        self._shut("Validation")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the test's bar."""
        self._open("Test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move it."""
        self._move("Test", sum(self.trainer.num_test_batches))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it away."""
        self._shut("Test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the prediction's bar."""
        self._open("Prediction", sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move it."""
        self._move("Prediction", sum(self.trainer.num_predict_batches))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it away."""
        self._shut("Prediction")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no bar behind when a stage fails or is stopped."""
        self._shut()

    def _train_total(self, trainer: Trainer) -> float:
        return self.total_train_batches * (trainer.max_epochs or 1)

    def _open(self, stage: str, total: float) -> None:
        if self._enabled:
            self._shut(stage)
            self._bars[stage] = Bar(stage, _whole(total))
            self._done[stage] = 0

    def _move(self, stage: str, total: float, done: int | None = None, label: str | None = None) -> None:
        if stage in self._bars:
            self._done[stage] = self._done[stage] + 1 if done is None else done
            self._bars[stage].update(self._done[stage], _whole(total), label)

    def _shut(self, *stages: str) -> None:
        for stage in stages or list(self._bars):
            bar = self._bars.pop(stage, None)
            if bar:
                bar.close()


def _whole(total: float) -> int | None:
    return int(total) if math.isfinite(total) and total > 0 else None
