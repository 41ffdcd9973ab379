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


def joined(protocols: Mapping[str, Protocol]) -> Protocol:
    """Return the protocol of several categories together: counts add up, a text names those that differ.

    A value of another kind that differs between categories is None: each category's own protocol has it.
    """
    first, *others = protocols.values()

    def text(name: str) -> str:
        return _agreed({category: getattr(one, name) for category, one in protocols.items()})

    def same(name: str) -> Any:
        value = getattr(first, name)
        return value if all(getattr(one, name) == value for one in others) else None

    counts: dict[str, dict[str, int]] = {}
    for one in protocols.values():
        for split, kinds in one.counts.items():
            for kind, count in kinds.items():
                counts.setdefault(split, {})[kind] = counts.get(split, {}).get(kind, 0) + count
    moved = [one.n_val_good for one in protocols.values() if one.n_val_good is not None]
    return Protocol(
        test_split_mode=text("test_split_mode"),
        test_split_ratio=same("test_split_ratio"),
        val_split_mode=text("val_split_mode"),
        val_split_ratio=same("val_split_ratio"),
        validation_is_test=first.validation_is_test,
        test_normal_from=text("test_normal_from"),
        validation_from=text("validation_from"),
        counts=counts,
        n_val_good=sum(moved) if moved else None,
        missing_masks=same("missing_masks"),
        calibration_share=same("calibration_share"),
        task=same("task"),
        bit_depth=first.bit_depth,
        mask_reading=same("mask_reading"),
    )


def _agreed(texts: Mapping[str, str]) -> str:
    """Return the text that all categories share, or each with the names of those that have it.

    >>> _agreed({"coins": "from_test", "digits": "from_test", "wells": "from_dir"})
    'coins, digits: from_test; wells: from_dir'
    """
    names: dict[str, list[str]] = {}
    for category, text in texts.items():
        names.setdefault(text, []).append(category)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{', '.join(categories)}: {text}" for text, categories in names.items())
