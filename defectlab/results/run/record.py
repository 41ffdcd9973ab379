"""The record of a run, `run.json`, as typed parts. This module loads neither torch nor numpy."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from defectlab.results.model_names import class_name
from defectlab.results.run.category_record import CategoryRecord
from defectlab.results.run.k_shot_records import KShotsRecord
from defectlab.results.run.record_checks import check_record
from defectlab.results.run.result_records import (
    DefectRecord,
    EarlierThresholds,
    GroupsRecord,
    IntervalRecord,
    MapRetentionRecord,
    MonitorRecord,
    SweepRecord,
    Thresholds,
    TrackerRecord,
)
from defectlab.results.run.setup_records import (
    AdditionRecord,
    BackboneRecord,
    DatasetRecord,
    EnvironmentRecord,
    EvaluationRecord,
    ExperimentRecord,
    GitRecord,
    PreprocessingRecord,
    TilesRecord,
)
from defectlab.utils.json_files import read_json
from defectlab.utils.json_object import JsonObject, JsonTypeError, json_key
from defectlab.utils.version import __version__
from defectlab_runtime.errors import InputError

FILE = "run.json"
VERSION = 1  # version of the record's format; also assumed for a record without a version
Status = Literal["failed", "running", "fitted", "finished"]
STATUSES: tuple[str, ...] = get_args(Status)  # progress of a run, in ascending order


class RecordError(InputError):
    """Error for a run's record that cannot be read because it is missing, damaged, or of a newer version."""


class NewerRecordError(RecordError):
    """Error for a run's record of a newer version than this DefectLab supports."""


@dataclass(frozen=True, kw_only=True)
class ProcessRecord(JsonObject):
    """The process that runs, or ran, the experiment.

    Attributes:
        born: Boot of the machine and start time of the process; None if the system reports none.
        namespace: Namespace of process numbers, which each container has for itself; None if unknown.
    """

    pid: int
    host: str
    born: str | None = None
    namespace: str | None = None
    started: str


@dataclass(frozen=True, kw_only=True)
class ErrorRecord(JsonObject):
    """The error that ended a run, as a one-line summary and a traceback."""

    summary: str
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class RunRecord(JsonObject, Mapping[str, Any]):
    """The complete record of a run, stored as `run.json`.

    As a mapping (`record["metrics"]`) it is the JSON object, for notebooks and scripts; `json.dumps` takes
    `to_dict()`.

    Attributes:
        run_id: Equal for equal experiments.
        name: The run's name, that of its folder.
        facts: Settings and hashes that identify the experiment, flat and keyed by dotted name.
        parameters: Number of the model's parameters.
        metrics: Values by name, None where a metric cannot be computed; `metric_reasons` says why.
        timings: Seconds by stage.
        checkpoint: Relative to the run's folder, or to the project for a run that only tested; None: removed.
        model_class: The class of the model where it is not the registered one.
        sources: Where a model's other files came from.
        notes: What the training found and did of its own accord, such as a floor under a deviation.
        history: Mean loss of each epoch by name, None where an epoch has none.
        validation_epoch: The epoch (from 0) whose weights the thresholds are of.
        earlier_thresholds: Those that a choice after the training replaced, oldest first.
        trivial: Metrics of a trivial detector that calls every image anomalous.
        categories: Where one model serves several categories, each one's images and results; `metrics` and `trivial`
            are then means over them, each counting the same, and `per_defect` names kinds as category/defect.
        k_shots: Fits with a few of the training images, where `data.k_shots` asks for them.
        addition: The run whose model images were added to; None: the model was trained on all of its images.
        partial: Which of its images have no score, such as "4 of 10 test images scored"; such a run is not ranked.
        fitted, finished, failed: Times in UTC at which the run reached that status.
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
    notes: Mapping[str, str] = field(default_factory=dict)
    tiling: TilesRecord | None = None
    history: Mapping[str, list[float | None]] = field(default_factory=dict)
    validation_epoch: int | None = None
    earlier_thresholds: list[EarlierThresholds] = field(default_factory=list)
    monitor: MonitorRecord | None = None
    metric_reasons: Mapping[str, str | None] = field(default_factory=dict)
    intervals: Mapping[str, IntervalRecord | None] = field(default_factory=dict)
    per_defect: list[DefectRecord] = field(default_factory=list)
    trivial: Mapping[str, float | None] = field(default_factory=dict)
    groups: GroupsRecord | None = field(default=None, metadata=json_key("parts"))
    categories: list[CategoryRecord] = field(default_factory=list)
    maps: MapRetentionRecord | None = None
    k_shots: KShotsRecord | None = None
    sweep: SweepRecord | None = None
    trackers: Mapping[str, TrackerRecord] = field(default_factory=dict, metadata=json_key("loggers"))
    partial: str | None = None
    addition: AdditionRecord | None = None
    fitted: str | None = None
    finished: str | None = None
    failed: str | None = None

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Create a record from the JSON object of `run.json`.

        Raises:
            JsonTypeError: A required key is missing or a value has another type; it names the key.
            NewerRecordError: The record is of a newer version.
        """
        version = data.get("version", VERSION) if isinstance(data, Mapping) else VERSION
        if type(version) is int and version > VERSION:
            raise NewerRecordError(
                f"it is of version {version}, newer than DefectLab {__version__} reads ({VERSION}). Update defectlab."
            )
        record = super().from_dict(data)
        check_record(record)
        return record

    def written_keys(self) -> list[str]:
        """Return the keys that `to_dict` writes, the version first."""
        return list(dict.fromkeys(("version", *super().written_keys())))

    def __getitem__(self, key: str) -> Any:
        if key not in self.written_keys():
            raise KeyError(key)
        return self.plain_value(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.written_keys())

    def __len__(self) -> int:
        return len(self.written_keys())

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record's JSON object merged with another mapping, whose keys take precedence."""
        return self.to_dict() | dict(other)

    @property
    def model(self) -> str:
        """The class name of the model."""
        return self.model_class or class_name(self.experiment.model_name)

    @property
    def error_summary(self) -> str | None:
        """The error that ended the run, in one line; None if there was no error."""
        return None if self.error is None else self.error.summary

    @property
    def sweep_facts(self) -> SweepRecord:
        """Facts about the sweep that made this run, or empty defaults for a run outside any sweep."""
        return self.sweep or SweepRecord()

    @property
    def seed(self) -> int:
        """The seed of the experiment."""
        return int(self.facts.get("seed", self.facts.get("model.seed", 0)))


def read_record(folder: Path) -> RunRecord:
    """Read the record from a run's folder.

    Raises:
        RecordError: There is none, or it is damaged.
        NewerRecordError: It is of a newer version.
    """
    file = folder / FILE
    try:
        return RunRecord.from_dict(read_json(file))
    except JsonTypeError as error:
        problem = f"is damaged: {error}. Restore it, or train the run again."
    except NewerRecordError as error:
        raise NewerRecordError(f"{file} cannot be read: {error}") from None
    except OSError as error:
        problem = f"cannot be read ({error.strerror}). Restore it, or train the run again."
    raise RecordError(f"{file} {problem}")


def find_record(folder: Path) -> RunRecord | None:
    """Return the record of a run's folder; None if the record is missing or damaged.

    Raises:
        NewerRecordError: It is of a newer version, so that nothing may take its place.
    """
    try:
        return read_record(folder)
    except NewerRecordError:
        raise
    except RecordError:
        return None
