"""Run folders: creation when a run starts, atomic updates of the record, and access to the stored results."""

import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from defectlab.results.run.arrays import mapped, unpack_masks
from defectlab.results.run.folder_lock import locked
from defectlab.results.run.identity import experiment_id, run_part
from defectlab.results.run.location import CHECKPOINT, parent_of, place_of, suggest_runs
from defectlab.results.run.ownership import (
    check_claim,
    claim,
    claim_of,
    is_alive,
    is_lost,
    owner_of,
    release,
    runs_elsewhere,
)
from defectlab.results.run.processes import this_process
from defectlab.results.run.record import FILE, STATUSES, ErrorRecord, RecordError, RunRecord, find_record, read_record
from defectlab.results.run.rerun import ATTEMPTS, clear_leftovers, discard, make_rerun_folder, replace_run, take_place
from defectlab.results.run.scores import read_scores, write_scores
from defectlab.utils import paths
from defectlab.utils.disk import disk_errors
from defectlab.utils.files import is_writable, json_content, write_json
from defectlab.utils.json_files import parse_json
from defectlab.utils.json_object import JsonTypeError
from defectlab_runtime.errors import BusyError, InputError
from defectlab_runtime.scores import ScoreRow

logger = logging.getLogger(__name__)

CONVERTED = "weights/anomalib/model.ckpt"  # the same weights in anomalib's own format


class Run:
    """A run folder, `results/<Model>/<dataset>/<run name>/`, and its run.json as `record`.

    `category` is set where a run that serves several categories is seen as one of these (`CategoryRun`).
    """

    category: str | None = None

    def __init__(self, folder: Path, record: RunRecord) -> None:
        self.folder = folder
        self.record = record

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open an existing run folder and read its record.

        Raises:
            InputError: There is no run there, or its record is damaged or of a newer version.
        """
        folder = paths.resolve(folder)
        if not (folder / FILE).is_file():
            raise InputError(f"{folder} is no run folder: it has no {FILE}. {suggest_runs(folder)}")
        return cls(folder, read_record(folder))

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "Run | None":
        """Return the run whose folder holds `checkpoint`, if there is one."""
        for folder in list(checkpoint.absolute().parents)[:4]:
            if (folder / FILE).is_file():
                return cls.open(folder)
        return None

    @classmethod
    def start(cls, results: Path, name: str, facts: Mapping[str, Any], parts: Mapping[str, Any]) -> "Run":
        """Create the folder and the record of a new run.

        The same experiment (equal `facts`) runs into a folder beside its earlier run and takes its place once it
        has come as far; another experiment of the same name gets a suffix naming what differs.

        Args:
            results: The folder of all runs.
            name: The run's readable name.
            facts: What makes the experiment what it is, by dotted name.
            parts: The other fields of the record that are known when a run starts, as typed parts or plain JSON data.

        Raises:
            BusyError: Another process is running this experiment at this moment.
            InputError: Results cannot be written there, a record of a newer version is in its place, or a setting is
                one that no record can hold, such as NaN.
        """
        identity = experiment_id(facts)
        begun = {"run_id": identity, "name": run_part(name), "status": "running", "error": None, "facts": dict(facts)}
        begun["process"] = {**this_process(), "started": _now()}
        record = RunRecord.from_dict(begun | dict(parts))
        try:
            parse_json(json_content(record.to_dict(), allow_nan=True))
        except JsonTypeError as error:  # before the training that would be lost with its record
            raise InputError(f"This run cannot be put on record: {error}.") from None
        parent = parent_of(results, record)
        if not is_writable(parent):
            raise InputError(f"{parent} cannot be written to. DEFECTLAB_RESULTS puts results elsewhere.")
        with disk_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
        with disk_errors(parent), locked(parent):
            for _ in range(ATTEMPTS):
                final = place_of(parent, name, facts, identity)
                clear_leftovers(parent, final.name, "running")
                earlier = find_record(final)
                if earlier is not None:
                    _check_free(final, earlier)
                run = cls(make_rerun_folder(parent, final.name), record)
                run.update(name=final.name)
                done = earlier is not None and (earlier.status in ("fitted", "finished") or is_alive(final, earlier))
                if done or (final / CHECKPOINT).exists():  # also a checkpoint to continue training from
                    return run
                if take_place(run.folder, final, earlier):
                    run.folder = final
                    return run
                discard(run.folder)
        raise BusyError(f"Other processes are starting runs of this name in {parent} again and again. Try it later.")

    def claim(self) -> None:
        """Make this process the owner of a run on record until it has finished or failed, as for a test.

        Raises:
            BusyError: Another living process is training or testing it, or has trained it and may test it.
        """
        with disk_errors(self.folder), locked(self.folder.parent):
            if claim_of(self.folder) is None or is_lost(self.folder):
                _check_free(self.folder, self.record)
                claim(self.folder)

    def update(self, **fields_: Any) -> None:
        """Change fields of the record, atomically: all of them or, if one cannot be written, none.

        Values may be typed parts or plain JSON data. A name that is no field of `RunRecord` becomes a key of its own.

        Raises:
            JsonTypeError: A value is not of its field's type.
            InputError: Another process has taken or removed the folder of this run.
        """
        check_claim(self.folder)
        changed = self.record.replaced(**fields_)
        write_json(self.folder / FILE, changed.to_dict())
        self.record = changed

    def advance(self, status: str, **fields_: Any) -> None:
        """Set the run's status; a rerun replaces its earlier run as soon as it has reached the same status.

        An earlier run that another living process is testing is replaced only by a finished one: that process then ends
        with an error that says so.
        """
        self.update(status=status, error=None, **{status: _now()}, **fields_)
        final = self._final
        if self.folder != final:
            with locked(final.parent):
                earlier = find_record(final)
                if _gives_way(final, earlier, status):
                    replace_run(final, self.folder)
                    self.folder = final
                    logger.info("Replaced the earlier run of the same experiment: %s", final)
                    _warn_of_lost_thresholds(earlier, final)
                    _warn_of_lost_fits(earlier, self.record)
        if self.folder == final and status != "fitted":  # a trained run is still to be tested
            release(final)
        clear_leftovers(final.parent, final.name, status, keep=self.folder)

    @contextmanager
    def recording_failure(self) -> Iterator[None]:
        """Store any error raised within a block in the record, then raise it again."""
        try:
            with disk_errors(self.folder):
                yield
        except BaseException as error:
            lost = is_lost(self.folder)
            try:
                if lost and isinstance(error, OSError | RuntimeError):  # of a file that went with the folder
                    check_claim(self.folder)
            finally:
                self._record_failure(error)
            raise

    def _record_failure(self, error: BaseException) -> None:
        last = traceback.format_exception_only(error)[-1].strip()
        trace = "".join(traceback.format_exception(error))
        # a finished run stays finished, even if a second test fails
        status = "finished" if self.record.status == "finished" else "failed"
        try:
            self.update(status=status, error=ErrorRecord(summary=last, traceback=trace), failed=_now())
        except (OSError, InputError) as why:  # the same full disk: the error that ended the run is the one to raise
            logger.error("The error that ended the run could not be recorded: %s", why)
        if self.folder == self._final:
            release(self.folder)

    @property
    def model(self) -> str:
        """Class name of the model of this run."""
        return self.record.model

    @property
    def dataset(self) -> str:
        """Name of the dataset of this run."""
        return self.record.dataset.name

    @property
    def title(self) -> str:
        """Title of this run for headings: model and run name."""
        return f"{self.model} {self.record.name}"

    @property
    def _final(self) -> Path:
        """The run's final folder; a rerun uses a hidden folder beside it until it replaces the earlier run."""
        return self.folder.parent / self.record.name if self.folder.name.startswith(".") else self.folder

    @property
    def checkpoint(self) -> Path:
        """Path of this run's own checkpoint."""
        return self.folder / CHECKPOINT

    @property
    def features_dtype(self) -> str:
        """Data type of the features that the run was computed from; a sweep may have rounded them (`cache_dtype`)."""
        return "float32" if self.record.sweep is None else self.record.sweep.cache_dtype

    @property
    def status(self) -> str:
        """Status of the record, or "interrupted" for a `running` record whose process no longer exists."""
        status = self.record.status
        return "interrupted" if status == "running" and not is_alive(self.folder, self.record) else status

    @property
    def checkpoint_path(self) -> Path:
        """Path of the checkpoint that this run's scores come from, even if it was removed; see `checkpoint_file`."""
        recorded = self.record.checkpoint
        own = recorded in (None, CHECKPOINT) or self.checkpoint.is_file()
        return self.checkpoint if own else paths.resolve(str(recorded))

    def holds(self, checkpoint: Path) -> bool:
        """Return whether `checkpoint` holds the weights of this run's thresholds and scores, not another epoch's."""
        return checkpoint.resolve() in ((self.folder / name).resolve() for name in (CHECKPOINT, CONVERTED))

    def checkpoint_file(self) -> Path:
        """Return the checkpoint this run's scores come from: its own, or for a run that only tested, another one's.

        Raises:
            InputError: It is not there, because the run did not come that far or because it was removed.
        """
        file = self.checkpoint_path
        if not file.is_file():
            why = f"; its error was {self.record.error.summary}" if self.record.error else ""
            raise InputError(f"{self.folder} has no checkpoint (status {self.status}{why}). Train it again.")
        return file

    def write_scores(self, rows: Sequence[ScoreRow]) -> None:
        """Write the rows of raw scores to scores.csv."""
        write_scores(self.folder / "scores.csv", rows)

    def scores(self, split: str | None = None) -> list[ScoreRow]:
        """Read scores.csv: all rows, or those of one split, in the order of the maps' rows.

        Raises:
            InputError: The file is damaged.
        """
        file_path = self.folder / "scores.csv"
        if not file_path.is_file():
            return []
        rows = read_scores(file_path)
        return [row for row in rows if split in (None, row.split)]

    @property
    def has_all_maps(self) -> bool:
        """Whether all maps of the run were retained, so that pixel metrics can be computed again."""
        return self.record.maps is None or self.record.maps.policy == "all"

    def maps_path(self, split: str) -> Path:
        """Return the path of the raw maps of a split."""
        return self.folder / "maps" / f"{split}.npy"

    def masks_path(self, split: str) -> Path:
        """Return the path of the packed ground-truth masks of a split."""
        return self.folder / "maps" / f"{split}_masks.npy"

    def grid_paths(self, split: str) -> tuple[Path, Path]:
        """Return the paths of the masks on a grid other than the maps', and of the sizes of images and grids."""
        return self.folder / "maps" / f"{split}_grid_masks.bin", self.folder / "maps" / f"{split}_grid_sizes.npy"

    def maps(self, split: str) -> np.ndarray | None:
        """Return the raw maps (n, H, W) float32 of a split, memory-mapped, rows as in scores.csv; None without maps.

        Raises:
            InputError: The file is damaged.
        """
        return mapped(self.maps_path(split), 3, np.float32)

    def packed_masks(self, split: str) -> np.ndarray | None:
        """Return a split's memory-mapped masks as stored: (n, H, W / 8) bits packed along the width, rounded up."""
        return mapped(self.masks_path(split), 3, np.uint8)

    def masks(self, split: str) -> np.ndarray | None:
        """Return the ground-truth masks (n, H, W) bool on the maps' grid; None without masks or maps."""
        packed, maps = self.packed_masks(split), self.maps(split)
        return None if packed is None or maps is None else unpack_masks(packed, maps.shape[-1])


def find_runs(results: Path | None = None) -> list[Run]:
    """Return every run under `results` (the project's, if None), oldest first; unreadable records are logged."""
    runs = []
    for file in (results or paths.results_dir()).glob(f"*/*/*/{FILE}"):
        if file.parent.name.startswith("."):
            continue
        try:
            runs.append(Run(file.parent, read_record(file.parent)))
        except RecordError as error:
            logger.warning("Unreadable record: %s", error)
    return sorted(runs, key=lambda run: run.record.process.started)


def _warn_of_lost_thresholds(earlier: RunRecord | None, folder: Path) -> None:
    """Log a warning if the thresholds of a replaced run had been chosen after its training: the new run has its own."""
    if earlier is None or not earlier.earlier_thresholds:
        return
    chosen = {level: f"{one.rule} {one.value}" for level, one in earlier.thresholds.by_level.items()}
    logger.warning(
        "The earlier run's thresholds had been set after its training (%s). The new run has those of its own "
        "training: set them again by `defectlab threshold --run %s --rule ...`.", chosen, paths.relative(folder),
    )  # fmt: skip


def _warn_of_lost_fits(earlier: RunRecord | None, record: RunRecord) -> None:
    """Log a warning if a replaced run had fits with a few images and the new one is to have none."""
    if earlier is not None and earlier.k_shots is not None and "k_shots" not in record.experiment.data:
        logger.warning("The earlier run's fits with a few images are gone with it: data.k_shots makes them again.")


def _check_free(folder: Path, record: RunRecord) -> None:
    """Check that no other living process uses a run.

    Raises:
        BusyError: One does; it says which, and what helps.
    """
    if not runs_elsewhere(folder, record):
        return
    owner = owner_of(folder, record) or record.process
    who = f"Process {owner.pid} of {owner.host}"
    if record.status == "fitted":
        raise BusyError(
            f"{who} has trained this experiment into {folder}, and tests it now or may test it later. Wait for it, "
            "test it there, or end that process (in a notebook: shut down its kernel)."
        )
    raise BusyError(f"{who} is running this experiment now, into {folder}. Wait for it, or stop it.")


def _gives_way(final: Path, earlier: RunRecord | None, status: str) -> bool:
    """Return whether an earlier run of the same experiment is replaced by one that has reached `status`."""
    if earlier is None:
        return True
    if STATUSES.index(earlier.status) > STATUSES.index(status):
        return False
    if not runs_elsewhere(final, earlier):
        return True
    if status == "finished":
        logger.warning("Another process is testing %s: it ends, since this run of the same experiment finished", final)
    return status == "finished"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
