"""Progress bars with the remaining time, one for each stage of a run."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from defectlab.utils.progress import Bar


class StageBars(ProgressBar):
    """Progress bars in place of Lightning's: one for the whole training instead of one per epoch.

    Being a `ProgressBar` it takes the place of Lightning's own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bars: dict[str, Bar] = {}
        self._done: dict[str, int] = {}
        self._enabled = True

    def disable(self) -> None:
        """Disable the progress bars, as on all processes but the first of several."""
        self._enabled = False

    def enable(self) -> None:
        """Enable the progress bars."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the progress bar of the training stage."""
        self._open("Training", self._train_total(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the training's bar by one batch."""
        epochs = trainer.max_epochs or 1
        label = f"Training, epoch {trainer.current_epoch + 1} of {epochs}" if epochs > 1 else None
        total = self._train_total(trainer)
        done = trainer.current_epoch * int(self.total_train_batches) + batch_idx + 1
        self._advance("Training", total, done, label)
        if done == total:  # what a memory bank does after its last batch has a bar of its own
            self._close("Training")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close every bar that is open."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close every bar when a stage fails or is stopped."""
        self._close()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar of a validation, a test or a prediction."""
        self._open(*self._evaluation())

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Advance the bar of a validation, a test or a prediction."""
        self._advance(*self._evaluation())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar of a validation, a test or a prediction."""
        self._close(self._evaluation()[0])

    on_test_start = on_predict_start = on_validation_epoch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_end = on_predict_end = on_validation_end

    def _evaluation(self) -> tuple[str, float]:
        """Return the name of the stage that scores images now, and the number of its batches."""
        if self.trainer.testing:
            return "Test", sum(self.trainer.num_test_batches)
        if self.trainer.predicting:
            return "Prediction", sum(self.trainer.num_predict_batches)
        return "Validation", self.total_val_batches

    def _train_total(self, trainer: Trainer) -> float:
        return self.total_train_batches * (trainer.max_epochs or 1)

    def _open(self, stage: str, total: float) -> None:
        if self._enabled:
            self._close(stage)
            self._bars[stage] = Bar(stage, _finite(total))
            self._done[stage] = 0

    def _advance(self, stage: str, total: float, done: int | None = None, label: str | None = None) -> None:
        if stage in self._bars:
            self._done[stage] = self._done[stage] + 1 if done is None else done
            self._bars[stage].update(self._done[stage], _finite(total), label)

    def _close(self, *stages: str) -> None:
        for stage in stages or list(self._bars):
            bar = self._bars.pop(stage, None)
            if bar:
                bar.close()


def _finite(total: float) -> int | None:
    return int(total) if math.isfinite(total) and total > 0 else None
