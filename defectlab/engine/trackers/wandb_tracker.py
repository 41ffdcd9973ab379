"""A run mirrored to Weights & Biases: `Engine(callbacks=[WandbLog("wells")])`. Offline unless asked otherwise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from defectlab.engine.losses import VALIDATION_LOSSES
from defectlab.engine.trackers.tracker import Mirror, title
from defectlab.results.run.record import Run
from defectlab.utils import paths
from defectlab.utils.errors import OptionError
from defectlab.utils.validation import checked_options

MODES = ("offline", "online", "disabled")


class WandbLog(Mirror):
    """Logs `train loss (batch)`, `train loss (epoch)`, `val proliv loss (epoch)`, `val not proliv loss (epoch)`.

    "proliv" is the kind of the anomalous validation images, or "anomalous" where they are of several kinds; the step is
    the number of training images seen. A training is a run tagged "train"; its test is one tagged "test", with `TPR`
    and `TNR`, every other metric, and the run's files. The record stays the truth: this is a copy.

    Args:
        project: Name of the project.
        mode: offline writes into the run's folder (`wandb sync` sends it later); online sends; disabled does nothing.
        checkpoint: As in `Mirror`.

    Raises:
        OptionError: No such mode.
        InputError: wandb is not installed.
    """

    name: ClassVar[str] = "wandb"

    @checked_options
    def __init__(self, project: str = "defectlab", mode: str = "offline", checkpoint: bool = False) -> None:
        if mode not in MODES:
            raise OptionError(f"WandbLog: mode must be one of {', '.join(MODES)}, got {mode!r}.")
        super().__init__(checkpoint)
        self.project = project
        self.mode = mode
        self._log: Any = None
        self._folder = Path()

    def begin(self, run: Run, stage: str) -> None:
        """Begin a run tagged with the stage."""
        import wandb

        self._folder = run.folder
        init: Any = wandb.init  # typed otherwise from version to version
        self._log = init(
            project=self.project,
            name=title(run),
            tags=[stage],
            config=run.record["experiment"],
            mode=self.mode,
            dir=str(run.folder),
        )

    def log_batch(self, loss: float, step: int) -> None:
        """Log the batch's loss."""
        self._log.log({"train loss (batch)": loss}, step=step)

    def log_epoch(self, losses: Mapping[str, float], step: int, epoch: int) -> None:
        """Log the epoch's losses by the names above; any other loss by its own."""
        names = {
            "train_loss": "train loss (epoch)",
            VALIDATION_LOSSES[1]: f"val {self.kind} loss (epoch)",
            VALIDATION_LOSSES[0]: f"val not {self.kind} loss (epoch)",
        }
        self._log.log({names.get(name, f"{name} (epoch)"): value for name, value in losses.items()}, step=step)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the rates by the names above, and every metric by its own."""
        rates = {"TPR": metrics.get("image_TPR"), "TNR": metrics.get("image_TNR")}
        self._log.log({name: value for name, value in rates.items() if value is not None} | dict(metrics))

    def keep(self, run: Run, files: list[Path]) -> None:
        """Put the files into the run's own."""
        for file in files:
            self._log.save(str(file), base_path=str(run.folder), policy="now")

    def end(self, failed: bool) -> None:
        """End the run."""
        if self._log is not None:
            self._log.finish(exit_code=int(failed))
            self._log = None

    def where(self) -> str:
        """Return the folder, or the project that was sent to."""
        return paths.relative(self._folder / "wandb") if self.mode == "offline" else f"{self.mode}: {self.project}"
