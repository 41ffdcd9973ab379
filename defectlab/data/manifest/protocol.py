"""The protocol of a dataset's split: where test and validation images come from. Imports neither torch nor numpy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from defectlab.utils.json_object import json_key


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Origin of the test and validation images, as fields and text, with counts[split][good | anomalous].

    `n_val_good` good images were taken out of training to validate beside the anomalous ones; None: not asked for.
    `group` is the pattern that names groups, `group_counts` their counts; both are None without one. With the group
    "near_duplicates", `copies` has the paths of each set of images that are copies of one photograph.
    `calibration_share` is None where no good validation images are held back for calibration.
    `missing_masks` is None where no defect lacks a mask that others have, or "whole" or "leave_out". `task` is None
    where none was asked for. `bit_depth` is that of values in 16-bit files; None is 16. `mask_reading` is what counts
    as marked in masks (`MaskReading`), and whether that is exactly what is not black; None without masks, and in
    records from before there was a choice, where it was that.
    """

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
    calibration_share: float | None = None
    task: str | None = None
    bit_depth: int | None = None
    mask_reading: Mapping[str, Any] | None = None
    copies: list[list[str]] = field(default_factory=list)

    @property
    def threshold_source(self) -> str:
        """The split that thresholds are chosen on."""
        return "test" if self.validation_is_test else "validation"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in their stored form, in which `group_counts` is named "parts"."""
        return {"parts" if name == "group_counts" else name: value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Protocol":
        """Create a protocol from the dictionary returned by `to_dict`."""
        return cls(**{"group_counts" if name == "parts" else name: value for name, value in data.items()})
