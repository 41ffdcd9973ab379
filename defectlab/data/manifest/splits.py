"""Which split an image is in, and the protocol that says so."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.groups import count_parts
from defectlab.data.manifest.sampling import pick_items
from defectlab.data.manifest.scan import Item, Role
from defectlab.utils.errors import OptionError, unknown_name
from defectlab.utils.validation import check_range, check_whole

TEST_MODES = ("none", "from_dir")
VAL_MODES = ("none", "same_as_test", "from_train", "from_test", "from_dir")
GOOD_ONLY_RATIO = 0.2
N_VAL_GOOD = 512  # good images that validate beside anomalous ones that have no good ones with them
MOST_VAL_GOOD = 0.2  # of training


@dataclass(frozen=True)
class SplitOptions:
    """How test and validation are made (anomalib's names); ratios are fractions in [0, 1), 0 takes nothing."""

    test_split_mode: str = "from_dir"
    test_split_ratio: float = 0.2
    val_split_mode: str = "from_test"
    val_split_ratio: float = 0.5
    seed: int = 42
    n_val_good: int | None = None

    @classmethod
    def checked(
        cls,
        test_split_mode: str | Enum | None,
        test_split_ratio: float,
        val_split_mode: str | Enum | None,
        val_split_ratio: float,
        seed: int,
        n_val_good: int | None = None,
    ) -> "SplitOptions":
        """Check names and ranges; enum members count by their value, None is "none" as in anomalib.

        Raises:
            OptionError: An unknown mode, "synthetic", a ratio outside [0, 1), or a negative count.
        """
        test_mode = _mode("test_split_mode", test_split_mode, TEST_MODES)
        val_mode = _mode("val_split_mode", val_split_mode, VAL_MODES)
        for name, ratio in (("test_split_ratio", test_split_ratio), ("val_split_ratio", val_split_ratio)):
            check_range("Data", name, ratio, low=0, high=1)
            if ratio == 1:
                raise OptionError(f"Data: {name}=1 would leave nothing behind; it must be in [0, 1).")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise OptionError(f"Data: seed must be a whole number, got {seed!r}.")
        if n_val_good is not None:
            check_whole("Data", "n_val_good", n_val_good, low=0)
        if test_mode == "none" and val_mode == "same_as_test":
            raise OptionError("Data: val_split_mode='same_as_test' needs a test set, but test_split_mode is 'none'.")
        return cls(test_mode, float(test_split_ratio), val_mode, float(val_split_ratio), seed, n_val_good)


@dataclass(frozen=True)
class Protocol:
    """Where test and validation images came from, in fields and in words, with counts[split][good | anomalous].

    `n_val_good` good images were taken out of training to validate beside the anomalous ones; None: not asked for.
    `group` is the pattern that names parts and `parts` their counts; both are None without one. `missing_masks` is None
    where no defect lacks a mask that others have, or "whole" or "leave_out". `task` is None where none was asked for.
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
    parts: Mapping[str, Mapping[str, int]] | None = None
    n_val_good: int | None = None
    missing_masks: str | None = None
    task: str | None = None


def assign(
    items: Sequence[Item],
    options: SplitOptions,
    findings: Findings,
    group: str | None = None,
    parts: Mapping[str, str] | None = None,
) -> tuple[list[tuple[Item, Role]], Protocol]:
    """Give each image its split. With "same_as_test" no entry is "validation": the protocol's flag says so.

    The files of normal_val_dir and abnormal_val_dir validate where there are any, in place of "from_test". With `parts`
    (path to part, made by the pattern `group`) ratios are of parts, and a part is never cut.
    """
    roles: dict[str, Role] = {item.path: item.role for item in items}
    mode, ratio = options.val_split_mode, options.val_split_ratio
    has_val_dirs = any(item.role == "validation" for item in items)
    good_only = not any(item.role == "test" and item.label == 1 for item in items)
    without_test = options.test_split_mode == "none"
    if without_test:
        roles = {path: role for path, role in roles.items() if role != "test"}
        findings.warn("test_split_mode is 'none': test images not used", _left_out(items, roles))

    if mode == "from_test" and has_val_dirs:
        mode = "from_dir"
        findings.choose("Validation images come from their own folders, because there are such folders.")
    elif mode == "from_test" and (good_only or without_test):
        reason = "there is no test set" if without_test else "there are only good images"
        mode, ratio = "from_train", GOOD_ONLY_RATIO if ratio > 0 else 0.0
        findings.choose(f"{ratio:.0%} of the training images validate, because {reason}.")
    if has_val_dirs and mode != "from_dir":
        roles = {path: role for path, role in roles.items() if role != "validation"}
        findings.warn(f"val_split_mode is '{mode}': validation folders not used", _left_out(items, roles, "validation"))
    if mode == "from_dir" and not has_val_dirs:
        findings.problem("Options", ["val_split_mode='from_dir' needs normal_val_dir or abnormal_val_dir (or val/)"])

    test_normal = _split_test(items, roles, options, good_only or without_test, findings, parts)
    validation = _split_validation(items, roles, mode, ratio, options.seed, parts)
    n_val_good = _take_good(items, roles, options, mode, findings, parts)
    if n_val_good is not None:
        validation += f", and {n_val_good} good training images by the seed"
    splits = [(item, roles[item.path]) for item in items if item.path in roles]
    counts = count_labels(splits)
    if unknown := counts["test"].get("unknown"):
        findings.choose(f"{unknown} images of unknown label are predicted and shown, and never scored.")
    is_test = mode == "same_as_test"
    if is_test and not any(role == "test" and item.label >= 0 for item, role in splits):
        findings.problem("Options", ["val_split_mode='same_as_test' needs test images, and there are none"])
    if not any(role == "train" for _, role in splits) and not findings.problems:
        findings.problem("No training images left", ["every good image went to test or validation: lower the ratios"])
    protocol = Protocol(
        test_split_mode=options.test_split_mode,
        test_split_ratio=options.test_split_ratio if test_normal.startswith("a seeded") else None,
        val_split_mode=mode,
        val_split_ratio=ratio if mode in ("from_test", "from_train") else None,
        validation_is_test=is_test,
        test_normal_from=test_normal,
        validation_from=validation,
        counts=counts,
        group=group,
        parts=None if parts is None else count_parts(_known(items, roles), {i.path: i.label for i in items}, parts),
        n_val_good=n_val_good,
    )
    return splits, protocol


def _split_test(
    items: Sequence[Item],
    roles: dict[str, Role],
    options: SplitOptions,
    no_anomalies: bool,
    findings: Findings,
    parts: Mapping[str, str] | None,
) -> str:
    """Move good images to test where the layout has none for it; return where the good test images come from."""
    if options.test_split_mode == "none":
        return "none: test_split_mode is 'none'"
    if any(roles.get(item.path) == "test" and item.label == 0 for item in items):
        return "their own folder"
    if no_anomalies:
        return "none: there are only training images"
    if options.test_split_ratio == 0:
        return "none: test_split_ratio is 0"
    candidates = [item for item in items if roles.get(item.path) == "train"]
    tested = _images_of_tested_parts(candidates, items, roles, parts, findings)
    free = [item for item in candidates if item.path not in tested]
    moved = tested | pick_items(free, options.test_split_ratio, options.seed, "test", parts)
    roles.update(dict.fromkeys(moved, "test"))
    images = "good images" if parts is None else f"good images ({len({parts[path] for path in moved})} parts)"
    findings.choose(
        f"{len(moved)} of {len(candidates)} {images} ({options.test_split_ratio:.0%}, seed {options.seed}) "
        "are kept from training for the test set, because no normal_test_dir is given."
    )
    return f"a seeded {options.test_split_ratio:.0%} of the {_unit(parts)}training folder"


def _images_of_tested_parts(
    candidates: Sequence[Item],
    items: Sequence[Item],
    roles: Mapping[str, Role],
    parts: Mapping[str, str] | None,
    findings: Findings,
) -> set[str]:
    """Return the good images of parts whose defects are tested: training would know these parts."""
    if parts is None:
        return set()
    tested = {parts[item.path] for item in items if roles.get(item.path) == "test" and item.label >= 0}
    found = {item.path for item in candidates if parts[item.path] in tested}
    if found:
        findings.choose(f"{len(found)} good images are tested, because other images of their parts are.")
    return found


def _unit(parts: Mapping[str, str] | None) -> str:
    return "" if parts is None else "parts of the "


def _split_validation(
    items: Sequence[Item],
    roles: dict[str, Role],
    mode: str,
    ratio: float,
    seed: int,
    parts: Mapping[str, str] | None,
) -> str:
    """Move images to validation; return where they come from in words."""
    if mode == "none":
        return "none: val_split_mode is 'none'"
    if mode == "same_as_test":
        return "the test images themselves: thresholds chosen on them are oracle figures"
    if mode == "from_dir":
        return "their own folders"
    source: Role = "train" if mode == "from_train" else "test"
    candidates = [item for item in items if roles.get(item.path) == source and item.label >= 0]
    if parts is not None:  # a part may have images of both labels
        roles.update(dict.fromkeys(pick_items(candidates, ratio, seed, "validation", parts), "validation"))
    else:
        for label in (0, 1):
            of_label = [item for item in candidates if item.label == label]
            roles.update(dict.fromkeys(pick_items(of_label, ratio, seed, "validation", None), "validation"))
    what = "training images (good only)" if source == "train" else "test images, label by label and kind by kind"
    return f"a seeded {ratio:.0%} of the {_unit(parts)}{what}" if ratio > 0 else "none: val_split_ratio is 0"


def _take_good(
    items: Sequence[Item],
    roles: dict[str, Role],
    options: SplitOptions,
    mode: str,
    findings: Findings,
    parts: Mapping[str, str] | None,
) -> int | None:
    """Move `n_val_good` good training images to validation and return how many; None where there was no reason to.

    Not asked for, it is done where the validation folders hold anomalous images only.
    """
    labels = {item.label for item in items if roles.get(item.path) == "validation"}
    wanted, why = options.n_val_good, "as asked for"
    if wanted is None:
        if mode != "from_dir" or labels != {1}:
            return None
        wanted, why = N_VAL_GOOD, "because the validation folders hold anomalous images only"
    candidates = [item for item in items if roles.get(item.path) == "train"]
    units = len({item.path if parts is None else parts[item.path] for item in candidates})
    share = min(wanted / max(1, len(candidates)), MOST_VAL_GOOD)
    moved = pick_items(candidates, share, options.seed, "good validation", parts) if units > 1 and wanted else set()
    roles.update(dict.fromkeys(moved, "validation"))
    limit = f", at most {MOST_VAL_GOOD:.0%} of training" if len(moved) < wanted else ""
    findings.choose(
        f"{len(moved)} of {len(candidates)} good training images (n_val_good={wanted}{limit}, seed {options.seed}) "
        f"validate, {why}."
    )
    return len(moved)


def _known(items: Sequence[Item], roles: Mapping[str, Role]) -> dict[str, Role]:
    """Return the roles of images whose label is known."""
    return {item.path: roles[item.path] for item in items if item.path in roles and item.label >= 0}


def _mode(name: str, value: str | Enum | None, allowed: Sequence[str]) -> str:
    mode = "none" if value is None else str(value.value if isinstance(value, Enum) else value)
    if mode == "synthetic":
        raise OptionError(
            f"Data: {name}='synthetic' is not offered: figures on painted defects say nothing about real ones. "
            "Give abnormal_dir for real ones; with good images only, leave the mode out and 20% of them validate."
        )
    if mode not in allowed:
        raise OptionError(unknown_name(name, mode, allowed))
    return mode


def _left_out(items: Sequence[Item], roles: Mapping[str, Role], role: Role | None = None) -> list[str]:
    left = Counter(i.defect for i in items if i.path not in roles and (role is None or i.role == role))
    return [f"{defect}: {count} images" for defect, count in left.items()]


def count_labels(splits: Sequence[tuple[Item, Role]]) -> dict[str, dict[str, int]]:
    """Return counts[split][good | anomalous], and of the test set those unknown where there are any."""
    counts = {split: {"good": 0, "anomalous": 0} for split in ("train", "validation", "test")}
    for item, role in splits:
        kind = {0: "good", 1: "anomalous"}.get(item.label, "unknown")
        counts[role][kind] = counts[role].get(kind, 0) + 1
    return counts
