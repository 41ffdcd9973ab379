"""Assignment of images to splits, and the protocol that records the assignment."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.image_folders import Role
from defectlab.data.manifest.options import DataOptions
from defectlab.data.manifest.protocol import Protocol
from defectlab.data.manifest.sampling import sample_calibration, sample_items
from defectlab.data.manifest.scan import Item

GOOD_ONLY_RATIO = 0.2
N_VAL_GOOD = 512  # good training images moved to a validation set that would otherwise have only anomalous images
MAX_VAL_GOOD = 0.2  # share of the training images


class Source(Enum):
    """Origin of the good test images or the validation images; the value is the text in records."""

    TEST_OFF = "none: test_split_mode is 'none'"
    NO_DEFECTS = "none: there are only training images"
    TEST_RATIO_0 = "none: test_split_ratio is 0"
    SAMPLED_FOR_TEST = "a seeded {ratio:.0%} of the {unit}training folder"
    FOLDER = "their own folder"

    VALIDATION_OFF = "none: val_split_mode is 'none'"
    VALIDATION_RATIO_0 = "none: val_split_ratio is 0"
    TEST_ITSELF = "the test images themselves: thresholds chosen on them are oracle figures"
    SAMPLED_FROM_TRAIN = "a seeded {ratio:.0%} of the {unit}training images (good only)"
    SAMPLED_FROM_TEST = "a seeded {ratio:.0%} of the {unit}test images, label by label and kind by kind"
    FOLDERS = "their own folders"


def assign(
    items: Sequence[Item], options: DataOptions, findings: Findings, groups: Mapping[str, str] | None = None
) -> tuple[list[tuple[Item, Role]], Protocol]:
    """Assign a split to each image and return the protocol; with "same_as_test" no image is "validation".

    The files of normal_val_dir and abnormal_val_dir validate where there are any, in place of "from_test". With
    `groups` (path to the part that the image shows, made by `options.group`) ratios are of parts, and no part
    is cut.
    """
    splits = _Splits(items, options, findings, groups)
    if options.test_split_mode == "none":
        findings.warn("test_split_mode is 'none': test images not used", splits.drop("test"))
    mode, ratio = _validation_mode(items, options, findings)
    if mode != "from_dir":
        findings.warn(f"val_split_mode is '{mode}': validation folders not used", splits.drop("validation"))
    test_source = splits.fill_test()
    validation_source = splits.fill_validation(mode, ratio)
    n_val_good = splits.add_good_validation(mode)

    splits.report_calibration()
    assigned = splits.assigned()
    counts = count_labels(assigned)
    if unknown := counts["test"].get("unknown"):
        findings.choose(f"{unknown} images of unknown label are predicted and shown, and never scored.")
    if mode == "same_as_test" and not any(role == "test" and item.label >= 0 for item, role in assigned):
        findings.problem("Options", ["val_split_mode='same_as_test' needs test images, and there are none"])
    if not splits.members("train") and not findings.problems:
        findings.problem("No training images left", ["every good image went to test or validation: lower the ratios"])
    validation_from = splits.describe(validation_source, ratio)
    if n_val_good is not None:
        validation_from += f", and {n_val_good} good training images by the seed"
    test_is_sampled = test_source is Source.SAMPLED_FOR_TEST
    protocol = Protocol(
        test_split_mode=options.test_split_mode,
        test_split_ratio=float(options.test_split_ratio) if test_is_sampled else None,
        val_split_mode=mode,
        val_split_ratio=ratio if mode in ("from_test", "from_train") else None,
        validation_is_test=mode == "same_as_test",
        test_normal_from=splits.describe(test_source, options.test_split_ratio),
        validation_from=validation_from,
        counts=counts,
        group=options.group,
        group_counts=None if groups is None else count_groups(assigned, groups),
        n_val_good=n_val_good,
        calibration_share=float(options.calibration_share) or None,
    )
    return assigned, protocol


def _validation_mode(items: Sequence[Item], options: DataOptions, findings: Findings) -> tuple[str, float]:
    """Return the validation mode and ratio in effect; the default "from_test" is replaced if the folders require it."""
    mode, ratio = options.val_split_mode, float(options.val_split_ratio)
    has_folders = any(item.role == "validation" for item in items)
    if mode == "from_dir" and not has_folders:
        findings.problem("Options", ["val_split_mode='from_dir' needs normal_val_dir or abnormal_val_dir (or val/)"])
    if mode != "from_test":
        return mode, ratio
    if has_folders:
        findings.choose("Validation images come from their own folders, because there are such folders.")
        return "from_dir", ratio
    has_test = options.test_split_mode != "none"
    if has_test and _has_defects_to_test(items):
        return mode, ratio
    ratio = GOOD_ONLY_RATIO if ratio > 0 else 0.0
    reason = "there are only good images" if has_test else "there is no test set"
    findings.choose(f"{ratio:.0%} of the training images validate, because {reason}.")
    return "from_train", ratio


def _has_defects_to_test(items: Sequence[Item]) -> bool:
    return any(item.role == "test" and item.label == 1 for item in items)


class _Splits:
    """Assignment of images to splits in progress; images start in their folder's split and may be dropped."""

    def __init__(
        self, items: Sequence[Item], options: DataOptions, findings: Findings, groups: Mapping[str, str] | None
    ) -> None:
        self.items = items
        self.options = options
        self.findings = findings
        self.groups = groups
        assert options.seed is not None, "checked options have a seed"
        self.seed = options.seed
        self._roles: dict[str, Role] = {item.path: item.role for item in items}

    def members(self, role: Role) -> list[Item]:
        """Return the images in a split, in the order of `items`."""
        return [item for item in self.items if self._roles.get(item.path) == role]

    def assigned(self) -> list[tuple[Item, Role]]:
        """Return the images that are in any split, each with its split."""
        return [(item, self._roles[item.path]) for item in self.items if item.path in self._roles]

    def move(self, paths: Iterable[str], role: Role) -> None:
        """Move the images at these paths to another split."""
        self._roles.update(dict.fromkeys(paths, role))

    def drop(self, role: Role) -> list[str]:
        """Remove all images from a split, and return a line for each kind of defect that the split held."""
        dropped = self.members(role)
        for item in dropped:
            del self._roles[item.path]
        kinds = Counter(item.defect for item in dropped)
        return [f"{defect}: {count} images" for defect, count in kinds.items()]

    def sample(self, items: Sequence[Item], ratio: float, purpose: str) -> set[str]:
        """Return the paths of a seeded share of images, or, with groups, of a share of the parts that they show."""
        return sample_items(items, ratio, self.seed, purpose, self.groups)

    def describe(self, source: Source, ratio: float) -> str:
        """Return the text that describes a source in records."""
        return source.value.format(ratio=ratio, unit="" if self.groups is None else "parts of the ")

    def fill_test(self) -> Source:
        """Move good training images to a test set without any, and return the source of the good test images."""
        ratio = self.options.test_split_ratio
        if self.options.test_split_mode == "none":
            return Source.TEST_OFF
        if any(item.label == 0 for item in self.members("test")):
            return Source.FOLDER
        if not _has_defects_to_test(self.items):
            return Source.NO_DEFECTS
        if ratio == 0:
            return Source.TEST_RATIO_0
        candidates = self.members("train")
        tested = self._of_tested_groups(candidates)
        moved = tested | self.sample([item for item in candidates if item.path not in tested], ratio, "test")
        self.move(moved, "test")
        parts = "" if self.groups is None else f" ({len({self.groups[path] for path in moved})} parts)"
        self.findings.choose(
            f"{len(moved)} of {len(candidates)} good images{parts} ({ratio:.0%}, seed {self.seed}) "
            "are kept from training for the test set, because no normal_test_dir is given."
        )
        return Source.SAMPLED_FOR_TEST

    def _of_tested_groups(self, candidates: Sequence[Item]) -> set[str]:
        """Return the candidates that show parts with other images in the test set, which training must not see."""
        if self.groups is None:
            return set()
        tested = {self.groups[item.path] for item in self.members("test") if item.label >= 0}
        paths = {item.path for item in candidates if self.groups[item.path] in tested}
        if paths:
            self.findings.choose(f"{len(paths)} good images are tested, because other images of their parts are.")
        return paths

    def fill_validation(self, mode: str, ratio: float) -> Source:
        """Move images to validation according to the mode, and return the source of the validation images."""
        if mode == "none":
            return Source.VALIDATION_OFF
        if mode == "same_as_test":
            return Source.TEST_ITSELF
        if mode == "from_dir":
            return Source.FOLDERS
        candidates = [i for i in self.members("train" if mode == "from_train" else "test") if i.label >= 0]
        if self.groups is not None:  # a part may have images of both labels
            self.move(self.sample(candidates, ratio, "validation"), "validation")
        else:
            for label in (0, 1):
                of_label = [item for item in candidates if item.label == label]
                self.move(self.sample(of_label, ratio, "validation"), "validation")
        if ratio == 0:
            return Source.VALIDATION_RATIO_0
        return Source.SAMPLED_FROM_TRAIN if mode == "from_train" else Source.SAMPLED_FROM_TEST

    def add_good_validation(self, mode: str) -> int | None:
        """Move `n_val_good` good training images to validation and return how many; None if this does not apply.

        Without the option this is done if the validation folders hold anomalous images only.
        """
        wanted, why = self.options.n_val_good, "as asked for"
        if wanted is None:
            if mode != "from_dir" or {item.label for item in self.members("validation")} != {1}:
                return None
            wanted, why = N_VAL_GOOD, "because the validation folders hold anomalous images only"
        candidates = self.members("train")
        units = {item.path if self.groups is None else self.groups[item.path] for item in candidates}
        share = min(wanted / max(1, len(candidates)), MAX_VAL_GOOD)
        moved = self.sample(candidates, share, "good validation") if len(units) > 1 and wanted else set()
        self.move(moved, "validation")
        limit = f", at most {MAX_VAL_GOOD:.0%} of training" if len(moved) < wanted else ""
        self.findings.choose(
            f"{len(moved)} of {len(candidates)} good training images (n_val_good={wanted}{limit}, seed {self.seed}) "
            f"validate, {why}."
        )
        return len(moved)

    def report_calibration(self) -> None:
        """Report how many good validation images choose nothing, where that was asked for."""
        ratio = float(self.options.calibration_share)
        if not ratio:
            return
        validating = self.members("validation")
        images = ((item.path, item.label, item.facts.sha256) for item in validating)
        count = len(sample_calibration(images, ratio, self.seed, self.groups))
        self.findings.choose(
            f"{count} of {sum(item.label == 0 for item in validating)} good validation images (calibration_share="
            f"{ratio:g}, seed {self.seed}) choose nothing: they are kept for the threshold rule conformal."
        )


def count_labels(splits: Iterable[tuple[Item, Role]]) -> dict[str, dict[str, int]]:
    """Return the image counts as counts[split][good | anomalous], with "unknown" for images of unknown label."""
    counts = {split: {"good": 0, "anomalous": 0} for split in ("train", "validation", "test")}
    for item, role in splits:
        kind = {0: "good", 1: "anomalous"}.get(item.label, "unknown")
        counts[role][kind] = counts[role].get(kind, 0) + 1
    return counts


def count_groups(splits: Iterable[tuple[Item, Role]], groups: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Return the group counts[split][good | anomalous]; a group is anomalous if any of its images in the split is.

    Images of unknown label do not count.
    """
    worst: dict[tuple[str, str], int] = defaultdict(int)
    for item, role in splits:
        if item.label >= 0:
            worst[role, groups[item.path]] |= item.label
    counts = {split: {"good": 0, "anomalous": 0} for split in ("train", "validation", "test")}
    for (split, _), label in worst.items():
        counts[split]["anomalous" if label else "good"] += 1
    return counts
