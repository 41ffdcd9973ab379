"""A run's curves and metrics as one CSV file in its folder: `loggers: [csv]`."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from defectlab.engine.trackers.tracker import Mirror
from defectlab.results.run.record import Run
from defectlab.utils import paths
from defectlab.utils.files import replacing
from defectlab.utils.validation import checked_options

HEADER = ("stage", "epoch", "images_seen", "name", "value")


class CsvLog(Mirror):
    """Writes `metrics.csv` into the run folder, a row a value, as the training goes: any plotting tool reads it.

    Args:
        file: Its name.
    """

    name: ClassVar[str] = "csv"

    @checked_options
    def __init__(self, file: str = "metrics.csv") -> None:
        super().__init__()
        self.file = file
        self._path = Path()
        self._rows: list[tuple[object, ...]] = []

    def begin(self, run: Run, stage: str) -> None:
        """Start the file anew for a training; keep the training's rows for a test."""
        self._path = run.folder / self.file
        self._rows = []
        if stage == "test" and self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                self._rows = [tuple(row) for row in csv.reader(file) if row and row[0] == "train"]

    def log_epoch(self, losses: Mapping[str, float], step: int, epoch: int) -> None:
        """Add the epoch's losses."""
        self._rows += [("train", epoch, step, name, repr(value)) for name, value in losses.items()]
        self._write()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Add the test's metrics."""
        self._rows += [("test", "", "", name, repr(value)) for name, value in metrics.items()]
        self._write()

    def where(self) -> str:
        """Return the file."""
        return paths.relative(self._path)

    def _write(self) -> None:
        with replacing(self._path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([HEADER, *self._rows])
