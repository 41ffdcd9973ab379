"""The tracker for Comet, offline by default: `loggers: [comet]`; `comet upload` sends the copy later.

Not through Lightning's CometLogger, which writes nothing while offline.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from defectlab.engine.trackers.tracker import LogPoint, RunTracker, flatten, printable_settings
from defectlab.results.run.run import Run
from defectlab.utils.validation import checked_options
from defectlab_runtime import names
from defectlab_runtime.errors import OptionError

MODES = ("offline", "online")


class CometLog(RunTracker):
    """A Comet experiment for the training and one for the test, tagged so: settings, curves, metrics, files.

    Args:
        project: Name of the project.
        mode: offline writes archives into the run's folder; online sends, with the key that Comet finds by itself.
        checkpoint: As in `RunTracker`.

    Raises:
        OptionError: No such mode.
        InputError: comet-ml is not installed.
    """

    name: ClassVar[str] = "comet"
    packages: ClassVar[tuple[str, ...]] = ("comet_ml",)
    extra: ClassVar[str] = "comet"

    @checked_options
    def __init__(self, project: str = "defectlab", mode: str = "offline", checkpoint: bool = False) -> None:
        if mode not in MODES:
            raise OptionError(f"CometLog: mode must be one of {', '.join(MODES)}, got {mode!r}.")
        super().__init__(checkpoint)
        self.project = project
        self.mode = mode
        self._experiment: Any = None

    def start(self, run: Run, stage: str) -> None:
        """Start an experiment tagged with the stage."""
        import comet_ml

        self._path = run.folder / "comet"
        options: dict[str, Any] = {"project_name": self.project, "log_code": False, "display_summary_level": 0}
        if self.mode == "offline":
            self._path.mkdir(exist_ok=True)
            self._experiment = comet_ml.OfflineExperiment(**options, offline_directory=str(self._path))
        else:
            self._experiment = comet_ml.Experiment(**options)
        self._experiment.set_name(names.tracker(run.title))
        self._experiment.add_tag(stage)
        self._experiment.log_parameters(flatten(printable_settings(run.record.experiment.to_dict())))

    def log(self, values: Mapping[str, float], point: LogPoint) -> None:
        """Log losses by images seen; a test's metrics without a step."""
        if point.kind == "batch":
            self._experiment.log_metric("train_loss_batch", values["loss"], step=point.images_seen)
        else:
            step = {"step": point.images_seen, "epoch": point.epoch} if point.kind == "epoch" else {}
            self._experiment.log_metrics(dict(values), **step)

    def store(self, run: Run, files: list[Path]) -> None:
        """Log the files as assets."""
        for file in files:
            self._experiment.log_asset(str(file), file_name=file.name)

    def finish(self, failed: bool) -> None:
        """End the Comet experiment of this run."""
        if failed:
            self._experiment.add_tag("failed")
        self._experiment.end()

    def location(self) -> str:
        """Return the folder of the offline archives, or the name of the online project."""
        return super().location() if self.mode == "offline" else f"online: {self.project}"
