"""A run mirrored to Comet, offline unless asked otherwise: `loggers: [comet]`; `comet upload` sends it later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from defectlab.engine.trackers.tracker import Mirror, flat, title
from defectlab.results.run.record import Run
from defectlab.utils import paths
from defectlab.utils.errors import OptionError
from defectlab.utils.validation import checked_options

MODES = ("offline", "online")


class CometLog(Mirror):
    """A Comet experiment for the training and one for the test, tagged so: settings, curves, metrics, files.

    Args:
        project: Name of the project.
        mode: offline writes archives into the run's folder; online sends, with the key that Comet finds by itself.
        checkpoint: As in `Mirror`.

    Raises:
        OptionError: No such mode.
        InputError: comet-ml is not installed.
    """

    name: ClassVar[str] = "comet"

    @checked_options
    def __init__(self, project: str = "defectlab", mode: str = "offline", checkpoint: bool = False) -> None:
        if mode not in MODES:
            raise OptionError(f"CometLog: mode must be one of {', '.join(MODES)}, got {mode!r}.")
        super().__init__(checkpoint)
        self.project = project
        self.mode = mode
        self._log: Any = None
        self._folder = Path()

    def begin(self, run: Run, stage: str) -> None:
        """Begin an experiment tagged with the stage."""
        import comet_ml

        self._folder = run.folder / "comet"
        if self.mode == "offline":
            self._folder.mkdir(exist_ok=True)
            self._log = comet_ml.OfflineExperiment(
                project_name=self.project, offline_directory=str(self._folder), log_code=False, display_summary_level=0
            )
        else:
            self._log = comet_ml.Experiment(project_name=self.project, log_code=False, display_summary_level=0)
        self._log.set_name(title(run))
        self._log.add_tag(stage)
        self._log.log_parameters(flat(run.record["experiment"]))

    def log_batch(self, loss: float, step: int) -> None:
        """Log the batch's loss."""
        self._log.log_metric("train_loss_batch", loss, step=step)

    def log_epoch(self, losses: Mapping[str, float], step: int, epoch: int) -> None:
        """Log the epoch's losses."""
        self._log.log_metrics(dict(losses), step=step, epoch=epoch)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the test's metrics."""
        self._log.log_metrics(dict(metrics))

    def keep(self, run: Run, files: list[Path]) -> None:
        """Log the files."""
        for file in files:
            self._log.log_asset(str(file), file_name=file.name)

    def end(self, failed: bool) -> None:
        """End the experiment."""
        if failed:
            self._log.add_tag("failed")
        self._log.end()

    def where(self) -> str:
        """Return the folder of the archives, or the project that was sent to."""
        return paths.relative(self._folder) if self.mode == "offline" else f"online: {self.project}"
