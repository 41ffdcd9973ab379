"""The tracker that writes a run's curves and metrics to one CSV file in the run folder: `loggers: [csv]`.

Not Lightning's CSVLogger, whose file has a column for each name and none for stage, epoch and images.
"""

from collections.abc import Mapping
from typing import ClassVar

from defectlab.engine.trackers.tracker import LogPoint, RunTracker
from defectlab.results.run.run import Run
from defectlab.utils.files import read_csv, write_csv
from defectlab.utils.validation import checked_options

HEADER = ("stage", "epoch", "images_seen", "name", "value")


class CsvLog(RunTracker):
    """Writes `metrics.csv` into the run folder, a row a value, as the training goes: any plotting tool reads it.

    Args:
        file: Its name.
    """

    name: ClassVar[str] = "csv"

    @checked_options
    def __init__(self, file: str = "metrics.csv") -> None:
        super().__init__()
        self.file = file
        self._rows: list[tuple[object, ...]] = []

    def start(self, run: Run, stage: str) -> None:
        """Start without rows for a training; with the training's rows for a test."""
        self._path = run.folder / self.file
        self._rows = []
        if stage == "test" and self._path.is_file():
            self._rows = [tuple(row) for row in read_csv(self._path)[1] if row[0] == "train"]

    def log(self, values: Mapping[str, float], point: LogPoint) -> None:
        """Write the losses of an epoch or the metrics of a test as rows."""
        if point.kind == "batch":
            return
        place = ("train", point.epoch, point.images_seen) if point.kind == "epoch" else ("test", "", "")
        self._rows += [(*place, name, value) for name, value in values.items()]
        write_csv(self._path, HEADER, self._rows)
