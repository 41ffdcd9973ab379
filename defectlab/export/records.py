"""What `export.json` in a run's folder holds: the exported files and how each agrees with the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from defectlab.utils.json_object import JsonObject


@dataclass(frozen=True, kw_only=True)
class ParityRecord(JsonObject):
    """Agreement of an exported file with its run on the validation and test images.

    Attributes:
        images: Number of images scored.
        score_difference: Largest difference of a score, as a share of its size or of the scores' spread.
        map_difference: Largest difference in a map, as a share of the range of the validation maps; None without maps.
        maps_compared: Which of the run's maps there were to compare with: "all", "worst" or "none".
        changed_labels: Images whose label is another one at the run's threshold.
        before: Image and pixel AUROC of the run.
        after: The same of the file.
        p_value: Of the paired test (DeLong) of both image AUROCs; None with too few images.
        problems: What differs by more than is allowed; empty for a file that passed.
    """

    images: int
    score_difference: float
    map_difference: float | None
    maps_compared: str
    changed_labels: int
    before: Mapping[str, float | None]
    after: Mapping[str, float | None]
    p_value: float | None
    problems: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """The agreement in one line, or what differs."""
        if self.problems:
            return "; ".join(self.problems)
        words = [f"scores within {self.score_difference:.1e}"]
        words += [] if self.map_difference is None else [f"maps within {self.map_difference:.1e}"]
        words.append(f"{self.changed_labels} labels changed" if self.changed_labels else "labels equal")
        for name, after in self.after.items():
            before = self.before.get(name)
            if after is not None:
                words.append(f"{name} {after:.4f}" if before is None else f"{name} {before:.4f} -> {after:.4f}")
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True)
class ExportRecord(JsonObject):
    """One exported file: its name within the run's folder, and its sha256.

    `thresholds` are those in the file, `categories` image and pixel threshold of each category: the run's, or for a
    reduced precision those chosen again; `notes` says which.
    """

    file: str
    format: str
    precision: str
    sha256: str
    bytes: int
    exported: str
    versions: Mapping[str, str]
    thresholds: Mapping[str, float | None]
    categories: Mapping[str, list[float | None]] = field(default_factory=dict)
    parity: ParityRecord
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ExportsRecord(JsonObject):
    """All exported files of a run."""

    exports: list[ExportRecord] = field(default_factory=list)
