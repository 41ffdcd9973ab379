"""What every tracker does: follow a training, take a tested run's metrics and files, never cost the run anything."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from defectlab.engine.losses import VALIDATION_LOSSES
from defectlab.engine.trackers import check_installed
from defectlab.results.run.record import Run

logger = logging.getLogger(__name__)

FILES = ("run.json", "scores.csv", "manifest.json", "experiment.yaml", "pictures.png")


class Mirror(Callback):
    """A copy of a run at a tracker. A subclass says how to begin, log, keep files and end.

    What a tracker raises is logged and recorded under `loggers` of run.json; the run goes on without the copy. Between
    `begin` and `end` lies one stage, "train" or "test"; the step is the number of training images seen.

    Args:
        checkpoint: Whether the checkpoint goes along with the other files: run.json, scores.csv, manifest.json,
            experiment.yaml and pictures.png.

    Raises:
        InputError: The tracker's package is not installed.
    """

    name: ClassVar[str]

    def __init__(self, checkpoint: bool = False) -> None:
        check_installed(self.name)
        self.checkpoint = checkpoint
        self.kind = "anomalous"
        self._seen = 0
        self._validated = False
        self._open = False
        self._error: str | None = None

    def begin(self, run: Run, stage: str) -> None:
        """Begin to copy a stage of a run."""
        raise NotImplementedError

    def log_batch(self, loss: float, step: int) -> None:
        """Take the loss of one training batch."""

    def log_epoch(self, losses: Mapping[str, float], step: int, epoch: int) -> None:
        """Take the mean losses of one epoch, by their names in the record."""
        raise NotImplementedError

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Take a tested run's metrics, those that have a value."""
        raise NotImplementedError

    def keep(self, run: Run, files: list[Path]) -> None:
        """Take files of a finished run."""

    def end(self, failed: bool) -> None:
        """End the stage."""

    def where(self) -> str:
        """Say where the copy is, for the record."""
        raise NotImplementedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the copy of a training."""
        run = Run.open(trainer.default_root_dir)
        manifest = getattr(trainer, "datamodule").manifest  # noqa: B009 - Lightning attaches it without declaring it
        self._begin_training(run, {entry.defect for entry in manifest.split("validation") if entry.label == 1})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Copy the batch's loss."""
        self._seen += len(batch.image)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            self._tried(lambda: self.log_batch(float(loss), self._seen))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Know that this epoch has validation losses."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the epoch's losses; those of validation only where this epoch was validated."""
        found = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.endswith("loss") and (self._validated or name not in VALIDATION_LOSSES.values())
        }
        self._validated = False
        self._tried(lambda: self.log_epoch(found, self._seen, trainer.current_epoch + 1))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the copy of the training."""
        self._end(failed=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the copy as failed."""
        self._end(failed=True)

    def on_run_finished(self, run: Run) -> None:
        """Copy a tested run's metrics and files; the engine calls this once its record is complete."""
        self._begin(run, "test")
        metrics = {name: value for name, value in run.record["metrics"].items() if value is not None}
        self._tried(lambda: self.log_metrics(metrics, self._seen))
        files = [run.folder / name for name in FILES]
        if self.checkpoint and run.checkpoint.is_file():
            files.append(run.checkpoint)
        self._tried(lambda: self.keep(run, [file for file in files if file.is_file()]))
        self._end(failed=False)
        entry = {"error": self._error} if self._error else {"where": self.where()}
        run.update(loggers={**run.record.get("loggers", {}), self.name: entry})
        self._error = None

    def copy_curves(self, run: Run) -> None:
        """Copy the curves of a run that was trained where no tracker followed it, from its record."""
        history: Mapping[str, list[float | None]] = run.record.get("history") or {}
        if not history:
            return
        counts = run.record["dataset"]["protocol"]["counts"]
        self._begin_training(run, {row.defect for row in run.scores("validation") if row.label == 1})
        for epoch in range(1, max(map(len, history.values())) + 1):
            self._seen = epoch * sum(counts["train"].values())
            measured = {name: curve[epoch - 1] for name, curve in history.items() if len(curve) >= epoch}
            losses = {name: value for name, value in measured.items() if value is not None}
            self._tried(partial(self.log_epoch, losses, self._seen, epoch))
        self._end(failed=False)

    def take_checkpoint(self, run: Run) -> None:
        """Take the checkpoint of a run that is tested and mirrored already, where checkpoints go along."""
        if not self.checkpoint or run.status != "finished":
            return
        self._begin(run, "test")
        self._tried(lambda: self.keep(run, [run.checkpoint]))
        self._end(failed=False)

    def _begin_training(self, run: Run, kinds: set[str]) -> None:
        self.kind = next(iter(kinds)) if len(kinds) == 1 else "anomalous"
        self._seen, self._validated, self._error = 0, False, None
        self._begin(run, "train")

    def _begin(self, run: Run, stage: str) -> None:
        self._open = True
        self._tried(lambda: self.begin(run, stage))

    def _end(self, *, failed: bool) -> None:
        self._tried(lambda: self.end(failed))
        self._open = False

    def _tried(self, action: Callable[[], None]) -> None:
        """Do what a tracker should; the first thing that goes wrong ends this stage's copy, never the run."""
        if not self._open:
            return
        try:
            action()
        except Exception as error:  # a tracker may raise anything, and the run is worth more than its copy
            self._open = False
            self._error = f"{type(error).__name__}: {error}"
            logger.warning("Logger %s failed (%s). The run and its record go on without it.", self.name, self._error)
            self._give_up()

    def _give_up(self) -> None:
        """Leave nothing open at a tracker that has failed, as far as it still can."""
        try:
            self.end(failed=True)
        except Exception as error:
            logger.debug("Logger %s could not be ended either: %s", self.name, error)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name; None is left out.

    >>> flat({"seed": 1, "model": {"name": "padim", "crop": None}})
    {'seed': 1, 'model.name': 'padim'}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def title(run: Run) -> str:
    """Return a run's name at a tracker: model and name."""
    return f"{run.folder.parent.parent.name} {run.record['name']}"
