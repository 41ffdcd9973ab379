"""The manifest of a dataset: every image with split, label, defect, mask and content hash. Does not use torch."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from inspect import Parameter
from pathlib import Path
from typing import Any

from defectlab.data.image_facts import MAX_REMEMBERED, probe_all
from defectlab.data.manifest.category_surveys import dataset_name, joined_findings, survey_categories
from defectlab.data.manifest.groups import groups_by
from defectlab.data.manifest.layouts import relative_to_root
from defectlab.data.manifest.options import DataOptions, options_signature
from defectlab.data.manifest.protocol import Protocol, joined
from defectlab.data.manifest.sampling import sample_calibration
from defectlab.data.manifest.survey import Survey, survey
from defectlab.data.mask_content import MaskReading
from defectlab.utils.files import write_json
from defectlab.utils.json_files import read_json
from defectlab.utils.json_object import JsonTypeError
from defectlab.utils.validation import with_signature
from defectlab_runtime.errors import DataError, did_you_mean, unknown_name
from defectlab_runtime.image_files import nfc, path_order

logger = logging.getLogger(__name__)

VERSION = 1
MAX_NAMED = 5  # changed files in a message
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Entry:
    """One image, with posix paths relative to the root as on disk, and label 0 (good), 1 (anomalous) or -1 (unknown).

    `defect` is "good", "unknown" or the name of the abnormal folder; `width` and `height` are pixels after EXIF
    rotation. `mask_orientation` is the EXIF orientation that brings the mask onto the upright image. `category` is set
    in the manifest of several categories: the folder below the root that is the image's dataset.
    """

    path: str
    split: str
    label: int
    defect: str
    mask: str | None
    sha256: str
    mask_sha256: str | None
    width: int
    height: int
    mask_orientation: int = 1
    category: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data; a mask's orientation and a category only where there is one."""
        return {key: value for key, value in asdict(self).items() if _OPTIONAL.get(key, ...) != value}

    def below(self, category: str) -> "Entry":
        """Return the entry of a category's own manifest as that of the categories together has it."""
        mask = None if self.mask is None else f"{category}/{self.mask}"
        return replace(self, path=f"{category}/{self.path}", mask=mask, category=category)

    def alone(self) -> "Entry":
        """Return the entry as its category's own manifest has it, the inverse of `below`."""
        start = len(f"{self.category}/")
        mask = None if self.mask is None else self.mask[start:]
        return replace(self, path=self.path[start:], mask=mask, category=None)


_OPTIONAL = {"mask_orientation": 1, "category": None}  # fields of an entry that are written at other values only


@dataclass(frozen=True)
class Manifest:
    """A dataset as one run uses it: entries sorted by path, the split protocol, and warnings.

    For one model on several categories, `categories` holds each one's own manifest, as it would be alone, by name; the
    entries are theirs one category after another, with paths below the common root.
    """

    name: str
    root: Path
    layout: str
    seed: int
    protocol: Protocol
    entries: tuple[Entry, ...]
    warnings: tuple[str, ...] = ()
    categories: "tuple[Manifest, ...]" = ()

    @cached_property
    def hash(self) -> str:
        """The sha256 of the images' paths, contents, labels and splits; the root and the seed itself are not included.

        Images of unknown label are not included either, since they do not affect results. Of several categories it is
        that of their names and own hashes.
        """
        if self.categories:
            lines = "".join(f"{nfc(one.name)}\t{one.hash}\n" for one in self.categories)
            return hashlib.sha256(f"categories\n{lines}".encode()).hexdigest()
        digest = hashlib.sha256(f"validation_is_test={self.protocol.validation_is_test}\n".encode())
        if self.without_mask:
            digest.update(f"missing_masks={self.protocol.missing_masks}\n".encode())
        reading = self.protocol.mask_reading
        if reading is not None and not reading["not_zero"]:
            digest.update(f"mask_threshold={reading['threshold']:g} mask_inverted={reading['inverted']}\n".encode())
        for e in self.entries:
            if e.label < 0:
                continue
            line = [nfc(e.path), e.split, str(e.label), nfc(e.defect), e.sha256, e.mask_sha256 or ""]
            line += [] if e.mask_orientation == 1 else [f"mask_orientation={e.mask_orientation}"]
            digest.update(("\t".join(line) + "\n").encode())
        return digest.hexdigest()

    @property
    def has_masks(self) -> bool:
        """Whether any image has a mask, so that pixel metrics can be computed."""
        return any(entry.mask is not None for entry in self.entries)

    @property
    def without_mask(self) -> tuple[Entry, ...]:
        """The anomalous images without a mask in a dataset with masks; `protocol.missing_masks` is their treatment."""
        if self.categories:
            return tuple(entry.below(one.name) for one in self.categories for entry in one.without_mask)
        if not self.has_masks or self.protocol.missing_masks is None:
            return ()
        return tuple(entry for entry in self.entries if entry.label == 1 and entry.mask is None)

    def is_all_defect(self, entry: Entry) -> bool:
        """Return whether the whole image counts as defect because it is anomalous and `missing_masks` is "whole"."""
        return self._protocol_of(entry).missing_masks == "whole" and entry.label == 1 and entry.mask is None

    @cached_property
    def calibration(self) -> frozenset[str]:
        """The paths of the good validation images that choose nothing, a seeded share of them (`calibration_share`)."""
        if self.categories:
            return frozenset(f"{one.name}/{path}" for one in self.categories for path in one.calibration)
        ratio = self.protocol.calibration_share
        images = ((entry.path, entry.label, entry.sha256) for entry in self.split("validation"))
        return sample_calibration(images, ratio, self.seed, self.groups) if ratio else frozenset()

    @property
    def groups(self) -> dict[str, str] | None:
        """The part that each image shows, by path (`data.group`); None without groups."""
        if self.protocol.group is None:
            return None
        return groups_by((entry.path for entry in self.entries), self.protocol.group, self.protocol.copies)

    def chooses(self, entry: Entry) -> bool:
        """Return whether a validation image may choose an epoch or a configuration; see `calibration`."""
        return entry.path not in self.calibration

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images by split and defect kind, e.g. `{"test": {"good": 10, "crack": 11}}`."""
        counts: dict[str, dict[str, int]] = {}
        for name in SPLITS:
            kinds = counts.setdefault(name, {})
            for entry in self.split(name):
                kinds[entry.defect] = kinds.get(entry.defect, 0) + 1
        return counts

    def split(self, name: str) -> tuple[Entry, ...]:
        """Return the entries of "train", "validation" or "test".

        Where the test set validates, validation gives its entries, those of unknown label left out.
        """
        if name not in SPLITS:
            raise DataError(unknown_name("split", name, SPLITS))
        if name == "validation" and self.protocol.validation_is_test:
            return tuple(entry for entry in self.entries if entry.split == "test" and entry.label >= 0)
        return tuple(entry for entry in self.entries if entry.split == name)

    def index(self, path: str | Path) -> int:
        """Return the position of an image in `entries`; `path` is relative to the root or absolute."""
        key = os.fspath(path)
        relative = relative_to_root(self.root, Path(key)) if Path(key).is_absolute() else Path(key).as_posix()
        position = self._positions.get(nfc(relative))
        if position is None:
            raise DataError(f"{key} is not in the manifest of {self.name}.{did_you_mean(relative, self._positions)}")
        return position

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {nfc(entry.path): index for index, entry in enumerate(self.entries)}

    def absolute(self, entry: Entry) -> Path:
        """Return the path of the image on disk."""
        return self.root / entry.path

    def has_mask(self, entry: Entry) -> bool:
        """Return whether an anomalous image's defect area is known, from its mask or by the rule "whole"."""
        return entry.label == 1 and (entry.mask is not None or self.is_all_defect(entry))

    def absolute_mask(self, entry: Entry) -> Path | None:
        """Return the path of the image's mask on disk; None for an image without a mask."""
        return None if entry.mask is None else self.root / entry.mask

    def mask_reading(self, entry: Entry) -> MaskReading:
        """Return which pixels of the image's mask are marked, and how it is turned."""
        return replace(MaskReading.from_dict(self._protocol_of(entry).mask_reading), orientation=entry.mask_orientation)

    def category(self, name: str) -> "Manifest":
        """Return the own manifest of one of the categories.

        Raises:
            DataError: There is none of this name.
        """
        if name not in self._categories:
            raise DataError(unknown_name("category", name, list(self._categories)))
        return self._categories[name]

    @cached_property
    def _categories(self) -> "dict[str, Manifest]":
        return {one.name: one for one in self.categories}

    def _protocol_of(self, entry: Entry) -> Protocol:
        return self.protocol if entry.category is None else self._categories[entry.category].protocol

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values, which `from_json` converts back."""
        return {
            "version": VERSION,
            "hash": self.hash,
            "name": self.name,
            "root": str(self.root),
            "layout": self.layout,
            "seed": self.seed,
            "protocol": self.protocol.to_dict(),
            "warnings": list(self.warnings),
            **({"categories": [one._description() for one in self.categories]} if self.categories else {}),
            "entries": [entry.to_dict() for entry in self.entries],
        }

    def _description(self) -> dict[str, Any]:
        """Return what the manifest of several categories writes of one of them, whose entries are among its own."""
        written = self.to_json()
        return {key: written[key] for key in ("hash", "name", "layout", "protocol", "warnings")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Manifest":
        """Create a manifest from the JSON values of `to_json`.

        Raises:
            DataError: Another version, missing fields, or entries that do not give the hash in the file.
        """
        if data.get("version") != VERSION:
            raise DataError(f"A manifest of version {data.get('version')!r} cannot be read, only version {VERSION}.")
        try:
            root, seed = Path(data["root"]), data["seed"]
            entries = tuple(Entry(**entry) for entry in data["entries"])
            categories = tuple(
                cls(
                    name=one["name"],
                    root=root / one["name"],
                    layout=one["layout"],
                    seed=seed,
                    protocol=Protocol.from_dict(one["protocol"]),
                    entries=tuple(entry.alone() for entry in entries if entry.category == one["name"]),
                    warnings=tuple(one["warnings"]),
                )
                for one in data.get("categories", ())
            )
            manifest = cls(
                name=data["name"],
                root=root,
                layout=data["layout"],
                seed=seed,
                protocol=Protocol.from_dict(data["protocol"]),
                entries=entries,
                warnings=tuple(data["warnings"]),
                categories=categories,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"Not a manifest: {error}. Build it again with build_manifest.") from error
        if manifest.hash != data.get("hash"):
            raise DataError("The manifest was edited: its entries do not give its hash. Build it again.")
        return manifest

    def write(self, path: str | Path) -> Path:
        """Write the manifest atomically as JSON and return the path."""
        path = Path(path)
        write_json(path, self.to_json())
        return path

    @classmethod
    def read(cls, path: str | Path) -> "Manifest":
        """Read a manifest from a file written by `write`."""
        try:
            data = read_json(Path(path))
        except (OSError, JsonTypeError) as error:
            raise DataError(f"Cannot read the manifest {path}: {error}.") from error
        if not isinstance(data, dict):
            raise DataError(f"Cannot read the manifest {path}: it holds no object. Build it again.")
        return cls.from_json(data)


@with_signature(options_signature([Parameter("root", Parameter.POSITIONAL_OR_KEYWORD)]))
def build_manifest(**options: Any) -> Manifest:
    """Read, check and split the images under `root`, whose layout is detected if `normal_dir` is not given.

    Options are the fields of `DataOptions`. Modes are anomalib's, as names or enum members. "from_test", the default,
    gives way to "from_dir" where there are validation folders, and to a seeded 20 % of the training images where there
    are only good ones. Without `normal_test_dir`, `test_split_ratio` of the good images are tested instead of trained
    on. The same content in two splits, or under both labels, is an error unless `on_duplicate` is "warn".

    `group` is a regular expression on the image's path relative to the root: its group 1, or the whole match, names the
    part that the image shows, and seeded splits keep the images of a part together. A part that the folders themselves
    put into two splits is treated as a duplicate is.

    With `categories` each of these folders is read, checked and split as it would be alone, and equal content in two of
    them is treated as a duplicate too.

    Raises:
        OptionError: A mode, ratio or option that cannot work; nothing has been read then.
        DataError: Names every problem of the dataset at once.
    """
    given = DataOptions(**options)
    if given.categories is not None:
        surveys = survey_categories(given)
        findings = joined_findings(surveys, given.on_duplicate)
        findings.log()
        findings.raise_problems(str(given.root))
        return manifest_of_categories(surveys, given, findings.warnings)
    found = survey(given)
    found.findings.log()
    found.findings.raise_problems(str(found.root))
    return manifest_of(found)


def manifest_of(found: Survey) -> Manifest:
    """Return the manifest of a survey, whether or not it has problems."""
    entries = [
        Entry(
            path=item.path,
            split=split,
            label=item.label,
            defect=item.defect,
            mask=item.mask,
            sha256=item.facts.sha256,
            mask_sha256=item.mask_facts.sha256 if item.mask_facts else None,
            width=item.facts.width,
            height=item.facts.height,
            mask_orientation=item.mask_orientation,
        )
        for item, split in found.splits
    ]
    return Manifest(
        name=found.name,
        root=found.root,
        layout=found.layout.name,
        seed=found.seed,
        protocol=found.protocol,
        entries=tuple(sorted(entries, key=lambda entry: path_order(entry.path))),
        warnings=tuple(found.findings.warnings),
    )


def manifest_of_categories(
    surveys: Mapping[str, Survey], options: DataOptions, warnings: Sequence[str] = ()
) -> Manifest:
    """Return the manifest of several categories together from the survey of each, whether or not it has problems."""
    categories = tuple(manifest_of(found) for found in surveys.values())
    return Manifest(
        name=dataset_name(options, list(surveys)),
        root=categories[0].root.parent,
        layout="categories",
        seed=categories[0].seed,
        protocol=joined({one.name: one.protocol for one in categories}),
        entries=tuple(entry.below(one.name) for one in categories for entry in one.entries),
        warnings=tuple(warnings),
        categories=categories,
    )


def check_unchanged(manifest: Manifest) -> None:
    """Check that images and masks have the same content as when the manifest was built.

    Files with unchanged size and times are not read again. A missing file is not reported here, since reading it later
    raises its own error.

    Raises:
        DataError: Names those that have changed.
    """
    images: dict[Path, str] = {}
    masks: dict[Path, str] = {}
    for entry in manifest.entries:
        images[manifest.absolute(entry)] = entry.sha256
        mask = manifest.absolute_mask(entry)
        if mask is not None and entry.mask_sha256 is not None:
            masks[mask] = entry.mask_sha256
    wanted = images | masks
    if len(wanted) > MAX_REMEMBERED // 2:  # what was known of the first would be forgotten with the last
        logger.info("%d files: too many to look once more whether one has changed meanwhile", len(wanted))
        return
    facts = [*probe_all(list(images)), *probe_all(list(masks), as_masks=True)]
    found = zip([*images, *masks], facts, strict=True)
    changed = [path for path, fact in found if fact.sha256 not in ("", wanted[path])]
    if changed:
        names = "\n".join(f"  {path}" for path in changed[:MAX_NAMED])
        more = f"\n  and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        raise DataError(
            f"These files of {manifest.name} have changed since its images were checked, so that scores and record "
            f"would be of different images:\n{names}{more}\nStart it again: it then takes them as they are now."
        )
