"""The record of a run, `run.json`, as typed parts: the one way to read and write it. Loads neither torch nor numpy."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from defectlab.results.model_names import class_name
from defectlab.results.run.result_records import (
    DefectRecord,
    GroupsRecord,
    IntervalRecord,
    MapRetentionRecord,
    MonitorRecord,
    SweepRecord,
    Thresholds,
    TrackerRecord,
)
from defectlab.results.run.setup_records import (
    BackboneRecord,
    DatasetRecord,
    EnvironmentRecord,
    EvaluationRecord,
    ExperimentRecord,
    GitRecord,
    PreprocessingRecord,
    TilesRecord,
)
from defectlab.utils.errors import InputError
from defectlab.utils.json_object import JsonObject, JsonTypeError, json_key
from defectlab.utils.version import __version__

FILE = "run.json"
VERSION = 1  # of the record; one without a version is of this one
Status = Literal["failed", "running", "fitted", "finished"]
STATUSES: tuple[str, ...] = get_args(Status)  # how far a run came, the least first


class RecordError(InputError):
    """A run's record cannot be read: it is damaged, or of a newer version."""


class NewerRecordError(RecordError):
    """A run's record is of a version that this one does not know."""


@dataclass(frozen=True, kw_only=True)
class ProcessRecord(JsonObject):
    """The process that runs, or ran, the experiment. `born` is None where the system does not tell."""

    pid: int
    host: str
    born: str | None = None
    started: str


@dataclass(frozen=True, kw_only=True)
class ErrorRecord(JsonObject):
    """The error that ended a run, in one line and whole."""

    summary: str
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class RunRecord(JsonObject, Mapping[str, Any]):
    """The record of a run, all of `run.json`.

    As a mapping (`record["metrics"]`) it is the JSON object, for notebooks and scripts; `json.dumps` takes
    `to_dict()`.

    Attributes:
        run_id: Equal for equal experiments.
        name: The run's name, that of its folder.
        facts: What makes the experiment what it is, flat and by dotted name.
        parameters: How many the model has.
        metrics: Values by name, None where a metric cannot be computed; `metric_reasons` says why.
        timings: Seconds by stage.
        checkpoint: Relative to the run's folder, or to the project for a run that only tested; None: removed.
        model_class: The class of the model where it is not the registered one.
        sources: Where a model's other files came from.
        history: Mean loss of each epoch by name, None where an epoch has none.
        validation_epoch: The epoch (from 0) whose weights the thresholds are of.
        trivial: What calling every image anomalous would give.
        fitted, finished, failed: When that was, in UTC.
    """

    version: int = VERSION
    run_id: str
    name: str
    status: Status
    error: ErrorRecord | None
    facts: Mapping[str, Any]
    process: ProcessRecord
    experiment: ExperimentRecord
    dataset: DatasetRecord
    backbone: BackboneRecord
    parameters: int | None = None
    preprocessing: PreprocessingRecord
    evaluation: EvaluationRecord = field(default_factory=EvaluationRecord)
    metrics: Mapping[str, float | None]
    thresholds: Thresholds
    timings: Mapping[str, float]
    environment: EnvironmentRecord
    git: GitRecord | None = None
    checkpoint: str | None
    model_class: str | None = None
    sources: Mapping[str, Any] = field(default_factory=dict)
    tiling: TilesRecord | None = None
    history: Mapping[str, list[float | None]] = field(default_factory=dict)
    validation_epoch: int | None = None
    monitor: MonitorRecord | None = None
    metric_reasons: Mapping[str, str | None] = field(default_factory=dict)
    intervals: Mapping[str, IntervalRecord | None] = field(default_factory=dict)
    per_defect: list[DefectRecord] = field(default_factory=list)
    trivial: Mapping[str, float | None] = field(default_factory=dict)
    groups: GroupsRecord | None = field(default=None, metadata=json_key("parts"))
    maps: MapRetentionRecord | None = None
    sweep: SweepRecord | None = None
    trackers: Mapping[str, TrackerRecord] = field(default_factory=dict, metadata=json_key("loggers"))
    fitted: str | None = None
    finished: str | None = None
    failed: str | None = None

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Read a record.

        Raises:
            JsonTypeError: A required key is missing or a value has another type; it names the key.
            NewerRecordError: The record is of a newer version.
        """
        version = data.get("version", VERSION) if isinstance(data, Mapping) else VERSION
        if type(version) is int and version > VERSION:
            raise NewerRecordError(
                f"it is of version {version}, newer than DefectLab {__version__} reads ({VERSION}). Update defectlab."
            )
        return super().from_dict(data)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object, its version first."""
        return {"version": self.version} | super().to_dict()

    def __getitem__(self, key: str) -> Any:
        return self.to_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON object with other keys over its own, as a dict's `|` does."""
        return self.to_dict() | dict(other)

    @property
    def model(self) -> str:
        """The class name of the model."""
        return self.model_class or class_name(self.experiment.model_name)

    @property
    def error_summary(self) -> str | None:
        """The error that ended the run, in one line; None where none did."""
        return None if self.error is None else self.error.summary

    @property
    def sweep_facts(self) -> SweepRecord:
        """Facts about the sweep that made this run, empty defaults for a run outside any sweep."""
        return self.sweep or SweepRecord()

    @property
    def seed(self) -> int:
        """The seed of the experiment."""
        return int(self.facts.get("seed", self.facts.get("model.seed", 0)))


def read_record(folder: Path) -> RunRecord:
    """Read the record of a run's folder.

    Raises:
        RecordError: There is none, or it is damaged.
        NewerRecordError: It is of a newer version.
    """
    file = folder / FILE
    try:
        return RunRecord.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except JsonTypeError as error:
        problem = f"is damaged: {error}. Restore it, or train the run again."
    except NewerRecordError as error:
        raise NewerRecordError(f"{file} cannot be read: {error}") from None
    except (OSError, ValueError):
        problem = "is damaged: it is no record. Restore it, or train the run again."
    raise RecordError(f"{file} {problem}")


def find_record(folder: Path) -> RunRecord | None:
    """Return the record of a folder; None where there is none, or it is damaged.

    Raises:
        NewerRecordError: It is of a newer version, so that nothing may take its place.
    """
    try:
        return read_record(folder)
    except NewerRecordError:
        raise
    except RecordError:
        return None
