"""The record of a run, `run.json`, as typed parts: the one way to read and write it. Loads neither torch nor numpy."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from defectlab.results.model_names import class_name
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
class ExperimentRecord(JsonObject):
    """The settings that an experiment is run with, as its YAML has them; options by their names in each section."""

    name: str | None = None
    seed: int
    data: Mapping[str, Any]
    backbone: Mapping[str, Any]
    model: Mapping[str, Any]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any]

    @property
    def model_name(self) -> str:
        """The model's name in the registry."""
        return str(self.model.get("name"))


@dataclass(frozen=True, kw_only=True)
class ProtocolRecord(JsonObject):
    """How images were split; see `defectlab.data.manifest.splits.Protocol`."""

    test_split_mode: str
    test_split_ratio: float | None
    val_split_mode: str
    val_split_ratio: float | None
    validation_is_test: bool
    test_normal_from: str
    validation_from: str
    counts: Mapping[str, Mapping[str, int]]
    group: str | None = None
    group_counts: Mapping[str, Mapping[str, int]] | None = field(default=None, metadata=json_key("parts"))
    n_val_good: int | None = None
    missing_masks: str | None = None
    task: str | None = None

    @property
    def threshold_source(self) -> str:
        """The split that thresholds are chosen on."""
        return "test" if self.validation_is_test else "validation"


@dataclass(frozen=True, kw_only=True)
class DatasetRecord(JsonObject):
    """The images: counts by split and kind of defect, the manifest's hash, and how they were split.

    `without_mask` names the defects left out of the pixel metrics, as scores.csv names them.
    """

    name: str
    root: str
    counts: Mapping[str, Mapping[str, int]]
    manifest: str
    has_masks: bool
    protocol: ProtocolRecord
    without_mask: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class BackboneRecord(JsonObject):
    """The backbone and its weights: `source` is their file, "random(seed=42)" or what stood in for a file."""

    name: str
    source: str
    sha256: str
    kind: str
    spec: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class RegionRecord(JsonObject):
    """The part of each image that is looked at: left, top, right and bottom of a box, and a mask of valid pixels."""

    box: list[int] | None = None
    size: list[int] | None = None
    sha256: str | None = None
    code: str | None = None


@dataclass(frozen=True, kw_only=True)
class TilingOptions(JsonObject):
    """The size that images are brought to before they are cut into tiles, and the tiles' overlap."""

    image_size: list[int]
    overlap: float


@dataclass(frozen=True, kw_only=True)
class PreprocessingRecord(JsonObject):
    """How images became the model's input; see `defectlab.data.transforms.preprocessing.Preprocessing`."""

    size: list[int]
    crop: list[int] | None = None
    keep_aspect: bool = False
    mean: list[float]
    std: list[float]
    interpolation: str
    region: RegionRecord | None = field(default=None, metadata=json_key("area"))
    tiling: TilingOptions | None = None
    hash: str = ""

    def options(self) -> dict[str, Any]:
        """Return what a `Preprocessing` is made of."""
        return {key: value for key, value in self.to_dict().items() if key != "hash"}

    @property
    def pixels(self) -> int:
        """How many pixels of an image the model is given."""
        height, width = self.size if self.tiling is None else self.tiling.image_size
        return height * width


@dataclass(frozen=True, kw_only=True)
class TilesRecord(JsonObject):
    """Where tiles lie, in pixels, and how an image's score comes of theirs."""

    tile: list[int]
    rows: list[int]
    columns: list[int]
    image_size: list[int]
    image_score: str


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(JsonObject):
    """The grid of the pixel metrics: `pixel_size` as asked for, `grid` as it is, None where each image has its own."""

    pixel_size: str | list[int] = "input"
    grid: list[int] | None = None


@dataclass(frozen=True, kw_only=True)
class ThresholdRecord(JsonObject):
    """A threshold and how it was chosen; `oracle` says that the test images chose it. `value` None: there is none."""

    value: float | None
    rule: str
    source: str
    reason: str
    oracle: bool


NO_THRESHOLD = ThresholdRecord(value=None, rule="none", source="none", reason="none was chosen yet", oracle=False)


@dataclass(frozen=True, kw_only=True)
class Thresholds(JsonObject):
    """The image threshold and the pixel threshold."""

    image: ThresholdRecord = NO_THRESHOLD
    pixel: ThresholdRecord = NO_THRESHOLD

    @property
    def recorded(self) -> bool:
        """Whether thresholds were chosen, or could not be and say why."""
        return self != Thresholds()

    @property
    def by_level(self) -> dict[str, ThresholdRecord]:
        """The thresholds by "image" and "pixel"."""
        return {"image": self.image, "pixel": self.pixel}


@dataclass(frozen=True, kw_only=True)
class EnvironmentRecord(JsonObject):
    """Versions, device and number of threads."""

    defectlab: str
    anomalib: str
    torch: str
    torchvision: str
    lightning: str
    timm: str
    python: str
    platform: str
    device: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class GitRecord(JsonObject):
    """The state of the project's repository; `reason` says why there is no commit."""

    commit: str | None
    branch: str | None = None
    dirty: bool | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class MonitorRecord(JsonObject):
    """What decided which epoch's weights the run has; epochs count from 1."""

    metric: str | None
    keep: str
    patience: int | None
    best_epoch: int | None
    best_value: float | None
    stopped_after: int | None
    values: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class MapRetentionRecord(JsonObject):
    """Which maps stay on disk: the policy, the test rows of scores.csv that have one, and what is not possible then."""

    policy: str = field(metadata=json_key("kept"))
    rows: list[int] = field(default_factory=list)
    unavailable: str | None = None


@dataclass(frozen=True, kw_only=True)
class IntervalRecord(JsonObject):
    """A confidence interval; low and high are None where there is none, and `method` says why."""

    low: float | None
    high: float | None
    method: str
    confidence: float | None = None


@dataclass(frozen=True, kw_only=True)
class DefectRecord(JsonObject):
    """Results of one kind of test image: of its images and all good ones."""

    defect: str
    label: int
    count: int
    flagged: int | None
    mean_score: float | None = None
    image_auroc: float | None = field(default=None, metadata=json_key("image_AUROC"))
    image_aupr: float | None = field(default=None, metadata=json_key("image_AUPR"))
    image_f1_score: float | None = field(default=None, metadata=json_key("image_F1Score"))
    interval: IntervalRecord | None = None
    pixel_auroc: float | None = field(default=None, metadata=json_key("pixel_AUROC"))
    pixel_aupro: float | None = field(default=None, metadata=json_key("pixel_AUPRO"))
    pixel_aupr: float | None = field(default=None, metadata=json_key("pixel_AUPR"))
    pixel_f1_score: float | None = field(default=None, metadata=json_key("pixel_F1Score"))


@dataclass(frozen=True, kw_only=True)
class GroupThresholds(JsonObject):
    """The threshold of groups."""

    group: ThresholdRecord = field(metadata=json_key("part"))


@dataclass(frozen=True, kw_only=True)
class GroupsRecord(JsonObject):
    """Results of groups, the objects that several images show (`data.group`); metric names begin with `part_`."""

    pattern: str = field(metadata=json_key("group"))
    count: int
    counts: Mapping[str, int]
    images: int
    score: str
    metrics: Mapping[str, float | None]
    metric_reasons: Mapping[str, str | None]
    intervals: Mapping[str, IntervalRecord | None]
    trivial: Mapping[str, float | None]
    thresholds: GroupThresholds


@dataclass(frozen=True, kw_only=True)
class RefitRecord(JsonObject):
    """Why a sweep gave a run its checkpoint: by `metric` the best of so many, or by its name."""

    metric: str | None = None
    value: float | None = None
    split: str | None = None
    among: int | None = None
    oracle: bool | None = None
    named: str | None = None


@dataclass(frozen=True, kw_only=True)
class SweepRecord(JsonObject):
    """The sweep that a run was part of, and the seconds of the work that `shared_by` runs have in common."""

    name: str | None = None
    number: int | None = None
    shared_seconds: Mapping[str, float] = field(default_factory=dict)
    shared_by: int | None = None
    cache_dtype: str = "float32"
    groups: list[str] = field(default_factory=list)
    refit: RefitRecord | None = None


@dataclass(frozen=True, kw_only=True)
class TrackerRecord(JsonObject):
    """Where a tracker's copy of the run is, or the error that kept it from being made."""

    where: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord(JsonObject, Mapping[str, Any]):
    """The record of a run, all of `run.json`.

    As a mapping (`record["metrics"]`) it is the JSON object, for notebooks and scripts.

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
        """What is on record of the run's sweep, or of none."""
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
