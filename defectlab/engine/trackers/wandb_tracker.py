"""A run copied to Weights & Biases: `Engine(callbacks=[WandbLog("wells")])`. Offline unless asked otherwise.

Not through Lightning's WandbLogger, whose step counts its own calls: here it is the number of images seen.
"""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from defectlab.engine.losses import VALIDATION_LOSSES
from defectlab.engine.trackers.tracker import LogPoint, RunTracker, printable_settings
from defectlab.results.run.run import Run
from defectlab.utils.validation import checked_options
from defectlab_runtime import names
from defectlab_runtime.errors import OptionError

MODES = ("offline", "online", "disabled")


class WandbLog(RunTracker):
    """Logs `train loss (batch)`, `train loss (epoch)`, `val proliv loss (epoch)`, `val not proliv loss (epoch)`.

    "proliv" is the kind of the anomalous validation images, or "anomalous" where they are of several kinds; the step is
    the number of training images seen. A training is a run tagged "train"; its test is one tagged "test", with `TPR`
    and `TNR`, every other metric, and the run's files. The record stays the truth: this is a copy.

    Args:
        project: Name of the project.
        mode: offline writes into the run's folder (`wandb sync` sends it later); online sends; disabled does nothing.
        checkpoint: As in `RunTracker`.

    Raises:
        OptionError: No such mode.
        InputError: wandb is not installed.
    """

    name: ClassVar[str] = "wandb"
    packages: ClassVar[tuple[str, ...]] = ("wandb",)

    @checked_options
    def __init__(self, project: str = "defectlab", mode: str = "offline", checkpoint: bool = False) -> None:
        if mode not in MODES:
            raise OptionError(f"WandbLog: mode must be one of {', '.join(MODES)}, got {mode!r}.")
        super().__init__(checkpoint)
        self.project = project
        self.mode = mode
        self._run: Any = None

    def start(self, run: Run, stage: str) -> None:
        """Start a run tagged with the stage."""
        import wandb

        self._path = run.folder / "wandb"
        init: Any = wandb.init  # typed otherwise from version to version
        self._run = init(
            project=self.project,
            name=names.tracker(run.title),
            tags=[stage],
            config=printable_settings(run.record.experiment.to_dict()),
            mode=self.mode,
            dir=str(run.folder),
        )

    def log(self, values: Mapping[str, float], point: LogPoint) -> None:
        """Log losses by images seen under the names above, any other by its own; a test's metrics without a step."""
        if point.kind == "test":
            rates = {"TPR": values.get("image_TPR"), "TNR": values.get("image_TNR")}
            self._run.log({name: value for name, value in rates.items() if value is not None} | dict(values))
            return
        defect = names.tracker(self.defect)
        keys = {
            "loss": "train loss (batch)",
            "train_loss": "train loss (epoch)",
            VALIDATION_LOSSES[1]: f"val {defect} loss (epoch)",
            VALIDATION_LOSSES[0]: f"val not {defect} loss (epoch)",
        }
        losses = {keys.get(name, f"{name} (epoch)"): value for name, value in values.items()}
        self._run.log(losses, step=point.images_seen)

    def store(self, run: Run, files: list[Path]) -> None:
        """Save files of the run folder among the files of the W&B run."""
        for file in files:
            # As a pattern, `parts [1]` matches no folder; releases that cannot be told so raise a TypeError here.
            literal = {} if glob.escape(str(file)) == str(file) else {"glob": False}
            self._run.save(str(file), base_path=str(run.folder), policy="now", **literal)

    def finish(self, failed: bool) -> None:
        """Finish the W&B run of this copy."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
            self._run = None

    def location(self) -> str:
        """Return the folder of an offline copy; in another mode the mode and the project's name."""
        return super().location() if self.mode == "offline" else f"{self.mode}: {self.project}"
