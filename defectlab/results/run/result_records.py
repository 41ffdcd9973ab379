"""Computed parts of a run's record: thresholds, intervals, results by defect and group, and map retention."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from defectlab.utils.json_object import JsonObject, json_key


@dataclass(frozen=True, kw_only=True)
class ThresholdRecord(JsonObject):
    """A threshold (`value` None if there is none) and how it was chosen; `oracle` marks choice on the test images.

    `withdrawn` is why the rule's promise on new images does not hold.
    """

    value: float | None
    rule: str
    source: str
    reason: str
    oracle: bool
    withdrawn: str | None = None


NO_THRESHOLD = ThresholdRecord(value=None, rule="none", source="none", reason="none was chosen yet", oracle=False)


@dataclass(frozen=True, kw_only=True)
class Thresholds(JsonObject):
    """The image threshold and the pixel threshold.

    Where one model serves several categories, those of each are in `categories`, and there is none for all: scores of
    different categories have different scales.
    """

    image: ThresholdRecord = NO_THRESHOLD
    pixel: ThresholdRecord = NO_THRESHOLD
    categories: Mapping[str, "Thresholds"] = field(default_factory=dict)

    @property
    def recorded(self) -> bool:
        """Whether thresholds were chosen, or the reason why they could not be is recorded."""
        return self != Thresholds()

    @property
    def by_level(self) -> dict[str, ThresholdRecord]:
        """The thresholds keyed by the levels "image" and "pixel"."""
        return {"image": self.image, "pixel": self.pixel}


@dataclass(frozen=True, kw_only=True)
class EarlierThresholds(JsonObject):
    """Thresholds that a later choice replaced, and until when (UTC) they held; `group` is that of groups."""

    thresholds: Thresholds
    group: ThresholdRecord | None = field(default=None, metadata=json_key("part"))
    until: str


@dataclass(frozen=True, kw_only=True)
class MonitorRecord(JsonObject):
    """The metric, patience and values that selected the epoch of the run's weights; epochs count from 1."""

    metric: str | None
    keep: str
    patience: int | None
    best_epoch: int | None
    best_value: float | None
    stopped_after: int | None
    values: Mapping[str, float | None]

    @property
    def decided_epoch(self) -> bool:
        """Whether the metric chose among several epochs, by keeping the best or by ending the training."""
        return bool(self.metric) and len(self.values) > 1 and (self.keep == "best" or self.patience is not None)


@dataclass(frozen=True, kw_only=True)
class MapRetentionRecord(JsonObject):
    """Maps retained on disk: the policy, the test rows of scores.csv with a map, and the resulting limitations."""

    policy: str = field(metadata=json_key("kept"))
    rows: list[int] | None = None
    unavailable: str | None = None


@dataclass(frozen=True, kw_only=True)
class IntervalRecord(JsonObject):
    """A confidence interval; `low` and `high` are None if there is no interval, and `method` then gives the reason."""

    low: float | None
    high: float | None
    method: str
    confidence: float | None = None


@dataclass(frozen=True, kw_only=True)
class DefectRecord(JsonObject):
    """Results of one kind of test image, computed on its images together with all good images."""

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
    """The threshold applied to the scores of groups."""

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
    """Why a sweep gave a run its checkpoint: as the best of `among` runs by `metric`, or because it was named."""

    metric: str | None = None
    value: float | None = None
    split: str | None = None
    among: int | None = None
    oracle: bool | None = None
    named: str | None = None


@dataclass(frozen=True, kw_only=True)
class SweepRecord(JsonObject):
    """The sweep that a run was part of, and the seconds of the work that `shared_by` runs have in common.

    `objective` is the metric of the validation images by which a search judged its trials; None outside a search.
    """

    name: str | None = None
    number: int | None = None
    shared_seconds: Mapping[str, float] = field(default_factory=dict)
    shared_by: int | None = None
    cache_dtype: str = "float32"
    groups: list[str] = field(default_factory=list)
    objective: str | None = None
    refit: RefitRecord | None = None


@dataclass(frozen=True, kw_only=True)
class TrackerRecord(JsonObject):
    """The location of a tracker's copy of the run, or the error that prevented the copy."""

    where: str | None = None
    error: str | None = None
