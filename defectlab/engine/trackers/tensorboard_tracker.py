"""A run copied to TensorBoard, into its own folder: `loggers: [tensorboard]`; `tensorboard --logdir results`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from defectlab.engine.trackers.tracker import LogPoint, RunTracker
from defectlab.results.run.run import Run
from defectlab.utils.config_files import as_yaml
from defectlab.utils.validation import checked_options


class TensorBoardLog(RunTracker):
    """Logs to TensorBoard: curves by images seen, metrics as scalars, settings as text, and the run's pictures.

    Args:
        folder: Where, in the run folder.
    """

    name: ClassVar[str] = "tensorboard"
    packages: ClassVar[tuple[str, ...]] = ("tensorboard",)

    @checked_options
    def __init__(self, folder: str = "tensorboard") -> None:
        super().__init__()
        self.folder = folder
        self._logger: Any = None

    def start(self, run: Run, stage: str) -> None:
        """Open a TensorBoard event file for a run's stage."""
        from lightning.pytorch.loggers import TensorBoardLogger

        self._path = run.folder / self.folder
        self._logger = TensorBoardLogger(run.folder, self.folder, version="")
        if stage == "train":
            self._add_yaml("experiment", as_yaml(run.record.experiment.to_dict()))

    def log(self, values: Mapping[str, float], point: LogPoint) -> None:
        """Add losses and metrics, each kind under a heading of its own, by images seen."""
        if point.kind == "batch":
            values = {"batch": values["loss"]}
        heading = "metric" if point.kind == "test" else "loss"
        self._logger.log_metrics({f"{heading}/{name}": value for name, value in values.items()}, point.images_seen)

    def store(self, run: Run, files: list[Path]) -> None:
        """Add pictures as images and text files as text: TensorBoard stores no files."""
        from defectlab_runtime.images import as_uint8, read_image

        for file in files:
            if file.suffix == ".png":
                self._logger.experiment.add_image(file.stem, as_uint8(read_image(file)), dataformats="HWC")
            elif file.suffix == ".yaml":
                self._add_yaml(file.name, file.read_text(encoding="utf-8"))

    def _add_yaml(self, name: str, text: str) -> None:
        self._logger.experiment.add_text(name, f"```yaml\n{text}```")

    def finish(self, failed: bool) -> None:
        """Close the TensorBoard event file of the run."""
        self._logger.finalize("failed" if failed else "finished")  # "success" would write an empty hparams.yaml
