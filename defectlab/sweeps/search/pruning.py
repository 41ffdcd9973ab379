"""Pruning: a training that is worse than earlier ones on its validation images is ended early."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from defectlab.engine.recorder import Recorder
from defectlab.sweeps.attempt import PrunedTrialError
from defectlab.sweeps.selection import validation_metric


class Pruner(Callback):
    """Callback that reports each epoch's objective on the validation images to a trial, and ends a pruned training.

    Args:
        trial: An Optuna trial: `report(value, step)` and `should_prune()`.
        objective: A metric; see `validation_metric`.
    """

    def __init__(self, trial: Any, objective: str) -> None:
        self._trial = trial
        self._objective = objective

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch's objective if its validation is recorded; raise PrunedTrialError if the trial is pruned."""
        recorders = (callback for callback in trainer.callbacks if isinstance(callback, Recorder))  # type: ignore[attr-defined]
        run = next(recorders).run
        if run is None or run.record.validation_epoch != trainer.current_epoch:
            return
        value = validation_metric(run, self._objective).value
        if value is None:
            return
        self._trial.report(value, trainer.current_epoch)
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if not last and self._trial.should_prune():
            raise PrunedTrialError(
                f"ended after epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {self._objective} {value:.4f} "
                "on validation images is worse than the median of earlier trials at that epoch"
            )
