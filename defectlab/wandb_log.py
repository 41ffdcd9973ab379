"""A run mirrored to Weights & Biases: `Engine(callbacks=[WandbLog("wells")])`. Offline unless asked otherwise."""

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from defectlab.errors import InputError, OptionError
from defectlab.losses import VALIDATION_LOSSES
from defectlab.results.record import Run

logger = logging.getLogger(__name__)

MODES = ("offline", "online", "disabled")


class WandbLog(Callback):
    """Logs `train loss (batch)`, `train loss (epoch)`, `val proliv loss (epoch)`, `val not proliv loss (epoch)`.

    "proliv" is the kind of the anomalous validation images, or "anomalous" where they are of several kinds; the step is
    the number of training images seen. A training is a run tagged "train"; its test is one tagged "test", with `TPR`
    and `TNR`. The record stays the truth: this is a copy.

    Args:
        project: Name of the project.
        mode: offline writes into the run's folder (`wandb sync` sends it later); online sends; disabled does nothing.

    Raises:
        OptionError: No such mode.
        InputError: wandb is not installed.
    """

    def __init__(self, project: str, mode: str = "offline") -> None:
        if mode not in MODES:
            raise OptionError(f"WandbLog: mode must be one of {', '.join(MODES)}, got {mode!r}.")
        self.project = project
        self.mode = mode
        self._wandb = _wandb()
        self._log: Any = None
        self._seen = 0
        self._kind = "anomalous"
        self._validated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a run tagged "train"."""
        run = Run.open(trainer.default_root_dir)
        manifest = getattr(trainer, "datamodule").manifest  # noqa: B009 - Lightning attaches it without declaring it
        kinds = {entry.defect for entry in manifest.split("validation") if entry.label == 1}
        self._kind = kinds.pop() if len(kinds) == 1 else "anomalous"
        self._seen = 0
        self._log = self._begin(run, "train")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the batch's loss."""
        self._seen += len(batch.image)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None and self._log is not None:
            self._log.log({"train loss (batch)": float(loss)}, step=self._seen)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Know that this epoch has validation losses."""
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's losses."""
        names = {"train_loss": "train loss (epoch)"}
        if self._validated:
            names[VALIDATION_LOSSES[1]] = f"val {self._kind} loss (epoch)"
            names[VALIDATION_LOSSES[0]] = f"val not {self._kind} loss (epoch)"
        self._validated = False
        found = {key: float(trainer.callback_metrics[name]) for name, key in names.items()
                 if name in trainer.callback_metrics}  # fmt: skip
        if self._log is not None:
            self._log.log(found, step=self._seen)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run."""
        self._finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the run as failed."""
        self._finish(exit_code=1)

    def on_run_finished(self, run: Run) -> None:
        """Log a tested run's rates, as the engine calls this once its record is complete."""
        metrics = run.record["metrics"]
        rates = {"TPR": metrics.get("image_TPR"), "TNR": metrics.get("image_TNR")}
        self._log = self._begin(run, "test")
        self._log.log({name: value for name, value in rates.items() if value is not None})
        self._finish()

    def _begin(self, run: Run, tag: str) -> Any:
        return self._wandb.init(
            project=self.project,
            name=f"{run.folder.parent.parent.name} {run.record['name']}",
            tags=[tag],
            config=run.record["experiment"],
            mode=self.mode,
            dir=str(run.folder),
        )

    def _finish(self, exit_code: int = 0) -> None:
        if self._log is not None:
            self._log.finish(exit_code=exit_code)
            self._log = None


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise InputError(
            "WandbLog needs the package wandb, which DefectLab does not install: .venv/bin/python -m pip install wandb"
        ) from error
    return wandb
