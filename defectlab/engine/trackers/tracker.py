"""Base class of trackers: follows a training and copies a tested run; errors of a tracker never fail the run."""

import logging
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from defectlab.results.run.result_records import TrackerRecord
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab_runtime import names
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

FILES = ("run.json", "scores.csv", "manifest.json", "experiment.yaml", "pictures.png")


class LogPoint(NamedTuple):
    """Point that logged values belong to: a training batch, a training epoch (counted from 1) or the test of a run."""

    kind: Literal["batch", "epoch", "test"]
    images_seen: int  # training images so far
    epoch: int = 0


class RunTracker:
    """Copies a run to a tracker; a subclass says how its tracker starts, logs, stores files and finishes.

    What a tracker raises is logged and recorded under `loggers` of run.json; the run goes on without the copy. Between
    `start` and `finish` lies one stage, "train" or "test".

    Args:
        checkpoint: Whether the checkpoint goes along with the other files: run.json, scores.csv, manifest.json,
            experiment.yaml and pictures.png.

    Raises:
        InputError: The tracker's package is not installed.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()  # what it imports
    extra: ClassVar[str] = "loggers"  # of this project, with which its packages are installed

    def __init__(self, checkpoint: bool = False) -> None:
        self.check_installed()
        self.checkpoint = checkpoint
        self.defect = "anomalous"  # kind of the anomalous validation images, where they are of one kind
        self._path = Path()
        self._images_seen = 0
        self._is_open = False
        self._error: str | None = None

    @classmethod
    def check_installed(cls) -> None:
        """Check that the packages of this tracker are installed, without importing any of them.

        Raises:
            InputError: With the extra that installs them.
        """
        missing = [package for package in cls.packages if not _is_installed(package)]
        if missing:
            are = "is" if len(missing) == 1 else "are"
            raise InputError(
                f"Logger {cls.name} needs {', '.join(missing)}, which {are} not installed: "
                f".venv/bin/python -m pip install 'defectlab[{cls.extra}]' (in a checkout: '.[{cls.extra}]')."
            )

    def start(self, run: Run, stage: str) -> None:
        """Start the copy of a run's stage: train or test."""
        raise NotImplementedError

    def log(self, values: Mapping[str, float], point: LogPoint) -> None:
        """Log a batch's `loss`, an epoch's mean losses or a test's metrics, by their names in the record."""
        raise NotImplementedError

    def store(self, run: Run, files: list[Path]) -> None:
        """Store files of a finished run."""

    def finish(self, failed: bool) -> None:
        """Finish the copy of the stage."""

    def location(self) -> str:
        """Return the location of the copy for the record."""
        return paths.relative(self._path)

    def start_training(self, run: Run, defects: Collection[str]) -> None:
        """Start the copy of a training, whose anomalous validation images are of these kinds."""
        self.defect = next(iter(defects)) if len(defects) == 1 else "anomalous"
        self._images_seen, self._error = 0, None
        self._start(run, "train")

    def log_batch(self, loss: Any, images: int) -> None:
        """Log the loss of the next training batch, a number or a tensor of one, if it has any."""
        self._images_seen += images
        if loss is not None and self._is_open:
            self._attempt(self.log, {"loss": float(loss)}, LogPoint("batch", self._images_seen))

    def log_epoch(self, losses: Mapping[str, float], epoch: int) -> None:
        """Log the mean losses of a training epoch, counted from 1."""
        self._attempt(self.log, losses, LogPoint("epoch", self._images_seen, epoch))

    def end_stage(self, *, failed: bool = False) -> None:
        """Finish the copy of a stage, if one is open."""
        self._attempt(self.finish, failed)
        self._is_open = False

    def replay_training(self, run: Run) -> None:
        """Copy the training of a run that no tracker followed, from the losses by epoch on record."""
        history = run.record.history
        if not history:
            return
        images = sum(run.record.dataset.protocol.counts["train"].values())
        self.start_training(run, {row.defect for row in run.scores("validation") if row.label == 1})
        for epoch in range(1, max(map(len, history.values())) + 1):
            self._images_seen = epoch * images
            values = {name: curve[epoch - 1] for name, curve in history.items() if len(curve) >= epoch}
            self.log_epoch({name: value for name, value in values.items() if value is not None}, epoch)
        self.end_stage()

    def copy_test(self, run: Run) -> None:
        """Copy a tested run's metrics and files, and record the location of the copy or the error."""
        self._start(run, "test")
        metrics = {name: value for name, value in run.record.metrics.items() if value is not None}
        self._attempt(self.log, metrics, LogPoint("test", self._images_seen))
        files = [run.folder / name for name in FILES] + [run.checkpoint] * self.checkpoint
        self._attempt(self.store, run, [file for file in files if file.is_file()])
        self.end_stage()
        entry = TrackerRecord(error=self._error) if self._error else TrackerRecord(where=self.location())
        run.update(trackers={**run.record.trackers, self.name: entry})
        self._error = None

    def add_checkpoint(self, run: Run) -> None:
        """Store the checkpoint of a run that is tested and copied already, where checkpoints go along."""
        if self.checkpoint and run.status == "finished":
            self._start(run, "test")
            self._attempt(self.store, run, [run.checkpoint])
            self.end_stage()

    def _start(self, run: Run, stage: str) -> None:
        self._is_open = True
        self._attempt(self.start, run, stage)

    def _attempt(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call an action while the copy is open; its first error ends the copy of this stage, never the run."""
        if not self._is_open:
            return
        try:
            action(*arguments)
        except Exception as error:  # a tracker may raise anything, and the run is worth more than its copy
            self._is_open = False
            self._error = f"{type(error).__name__}: {error}"
            logger.warning("Logger %s failed (%s). The run and its record go on without it.", self.name, self._error)
            try:
                self.finish(failed=True)
            except Exception as another:
                logger.debug("Logger %s could not be ended either: %s", self.name, another)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name; None is left out.

    >>> flatten({"seed": 1, "model": {"name": "padim", "crop": None}})
    {'seed': 1, 'model.name': 'padim'}
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def printable_settings(settings: Any) -> Any:
    r"""Return settings whose keys and texts have no character that a tracker's service cannot encode or store.

    >>> printable_settings({"name": "a\x1b", "sizes": ["b", 1]})
    {'name': 'a\\x1b', 'sizes': ['b', 1]}
    """
    if isinstance(settings, str):
        return names.printable(settings, keep="\n\t")
    if isinstance(settings, Mapping):
        return {printable_settings(key): printable_settings(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [printable_settings(value) for value in settings]
    return settings


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # ValueError: a module without a spec stands in for it
        return True
