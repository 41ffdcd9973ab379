"""Part of a run's record for each category that one model serves."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from defectlab.results.run.result_records import DefectRecord, IntervalRecord
from defectlab.results.run.setup_records import DatasetRecord
from defectlab.utils.json_object import JsonObject


@dataclass(frozen=True, kw_only=True)
class CategoryRecord(JsonObject):
    """A category as a dataset of its own, and its results at its own thresholds (`Thresholds.categories`).

    `dataset` is what the record of a run on this category alone would say; its manifest's hash is equal where the test
    and validation images are.
    """

    name: str
    dataset: DatasetRecord
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    metric_reasons: Mapping[str, str | None] = field(default_factory=dict)
    intervals: Mapping[str, IntervalRecord | None] = field(default_factory=dict)
    per_defect: list[DefectRecord] = field(default_factory=list)
    trivial: Mapping[str, float | None] = field(default_factory=dict)
