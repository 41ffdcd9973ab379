"""Seeded splits: the same files on every machine and Python version, because ranks are hashes of names."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from defectlab.data.images import nfc
from defectlab.data.problems import Findings
from defectlab.data.scan import Item, Role
from defectlab.errors import OptionError, unknown_name
from defectlab.options import check_range

TEST_MODES = ("none", "from_dir")
VAL_MODES = ("none", "same_as_test", "from_train", "from_test", "from_dir")
GOOD_ONLY_RATIO = 0.2


@dataclass(frozen=True)
class SplitOptions:
    """How test and validation are made (anomalib's names); ratios are fractions in [0, 1), 0 takes nothing."""

    test_split_mode: str = "from_dir"
    test_split_ratio: float = 0.2
    val_split_mode: str = "from_test"
    val_split_ratio: float = 0.5
    seed: int = 42

    @classmethod
    def checked(
        cls,
        test_split_mode: str | Enum | None,
        test_split_ratio: float,
        val_split_mode: str | Enum | None,
        val_split_ratio: float,
        seed: int,
    ) -> "SplitOptions":
        """Check names and ranges; enum members count by their value, None is "none" as in anomalib.

        Raises:
            OptionError: An unknown mode, "synthetic", or a ratio outside [0, 1).
        """
        test_mode = _mode("test_split_mode", test_split_mode, TEST_MODES)
        val_mode = _mode("val_split_mode", val_split_mode, VAL_MODES)
        for name, ratio in (("test_split_ratio", test_split_ratio), ("val_split_ratio", val_split_ratio)):
            check_range("Data", name, ratio, low=0, high=1)
            if ratio == 1:
                raise OptionError(f"Data: {name}=1 would leave nothing behind; it must be in [0, 1).")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise OptionError(f"Data: seed must be a whole number, got {seed!r}.")
        if test_mode == "none" and val_mode == "same_as_test":
            raise OptionError("Data: val_split_mode='same_as_test' needs a test set, but test_split_mode is 'none'.")
        return cls(test_mode, float(test_split_ratio), val_mode, float(val_split_ratio), seed)


@dataclass(frozen=True)
class Protocol:
    """Where test and validation images came from, in fields and in words, with counts[split][good | anomalous]."""

    test_split_mode: str
    test_split_ratio: float | None
    val_split_mode: str
    val_split_ratio: float | None
    validation_is_test: bool
    test_normal_from: str
    validation_from: str
    counts: Mapping[str, Mapping[str, int]]


def assign(
    items: Sequence[Item], options: SplitOptions, findings: Findings
) -> tuple[list[tuple[Item, Role]], Protocol]:
    """Give each image its split. With "same_as_test" no entry is "validation": the protocol's flag says so.

    The files of normal_val_dir and abnormal_val_dir validate where there are any, in place of "from_test".
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

    test_normal = _split_test(items, roles, options, good_only or without_test, findings)
    validation = _split_validation(items, roles, mode, ratio, options.seed)
    splits = [(item, roles[item.path]) for item in items if item.path in roles]
    counts = _counts(splits)
    is_test = mode == "same_as_test"
    if is_test and not any(role == "test" for _, role in splits):
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
    )
    return splits, protocol


def pick(paths: Iterable[str], count: int, seed: int, purpose: str, twins: Mapping[str, str] | None = None) -> set[str]:
    """Return `count` of the paths, those that rank first; files of one content (`twins`) are never parted.

    `twins` maps a path to what it shares with its duplicates. A group that would be cut is left behind, so that
    fewer may come back.

    >>> sorted(pick(["a.png", "b.png", "c.png", "d.png"], 2, seed=42, purpose="validation"))
    ['b.png', 'c.png']
    """
    paths = list(paths)
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[path if twins is None else twins[path]].append(path)
    ranked = sorted(groups.values(), key=lambda group: min(_rank(seed, purpose, path) for path in group))
    picked: set[str] = set()
    for group in ranked:
        if len(picked) + len(group) > count:
            continue
        picked.update(group)
    return picked


def share(sizes: Mapping[str, int], ratio: float) -> dict[str, int]:
    """Return how many of each kind to take, by largest remainder; kinds of two and more end up on both sides.

    The total is rounded down, so that the odd one stays behind; equal remainders favour the larger kind.

    >>> share({"crack": 3, "hole": 5, "scratch": 2}, 0.5)
    {'crack': 1, 'hole': 3, 'scratch': 1}
    >>> share({"rare": 1, "common": 9}, 0.2)
    {'rare': 0, 'common': 2}
    """
    total = sum(sizes.values())
    if ratio <= 0 or total < 2:
        return dict.fromkeys(sizes, 0)
    wanted = min(max(int(total * ratio + 1e-9), 1), total - 1)
    taken = {kind: int(size * ratio + 1e-9) for kind, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda kind: (-(sizes[kind] * ratio - taken[kind]), -sizes[kind], nfc(kind)))
    for kind in by_remainder[: max(wanted - sum(taken.values()), 0)]:
        taken[kind] += 1
    for kind, size in sizes.items():
        if size >= 2:
            taken[kind] = min(max(taken[kind], 1), size - 1)
    return taken


def _split_test(
    items: Sequence[Item], roles: dict[str, Role], options: SplitOptions, no_anomalies: bool, findings: Findings
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
    moved = _pick_items(candidates, options.test_split_ratio, options.seed, "test")
    roles.update(dict.fromkeys(moved, "test"))
    findings.choose(
        f"{len(moved)} of {len(candidates)} good images ({options.test_split_ratio:.0%}, seed {options.seed}) are kept "
        "from training for the test set, because no normal_test_dir is given."
    )
    return f"a seeded {options.test_split_ratio:.0%} of the training folder"


def _split_validation(items: Sequence[Item], roles: dict[str, Role], mode: str, ratio: float, seed: int) -> str:
    """Move images to validation; return where they come from in words."""
    if mode == "none":
        return "none: val_split_mode is 'none'"
    if mode == "same_as_test":
        return "the test images themselves: thresholds chosen on them are oracle figures"
    if mode == "from_dir":
        return "their own folders"
    source: Role = "train" if mode == "from_train" else "test"
    for label in (0, 1):
        candidates = [item for item in items if roles.get(item.path) == source and item.label == label]
        roles.update(dict.fromkeys(_pick_items(candidates, ratio, seed, "validation"), "validation"))
    what = "training images (good only)" if source == "train" else "test images, label by label and kind by kind"
    return f"a seeded {ratio:.0%} of the {what}" if ratio > 0 else "none: val_split_ratio is 0"


def _pick_items(items: Sequence[Item], ratio: float, seed: int, purpose: str) -> set[str]:
    kinds: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        kinds[item.defect].append(item)
    counts = share({kind: len(members) for kind, members in kinds.items()}, ratio)
    picked: set[str] = set()
    for kind, members in kinds.items():
        twins = {item.path: item.facts.sha256 for item in members}
        picked |= pick(twins, counts[kind], seed, purpose, twins)
    return picked


def _rank(seed: int, purpose: str, path: str) -> str:
    return hashlib.sha256(f"{seed}:{purpose}:{nfc(path)}".encode()).hexdigest()


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


def _counts(splits: Sequence[tuple[Item, Role]]) -> dict[str, dict[str, int]]:
    counts = {split: {"good": 0, "anomalous": 0} for split in ("train", "validation", "test")}
    for item, role in splits:
        counts[role]["anomalous" if item.label else "good"] += 1
    return counts
