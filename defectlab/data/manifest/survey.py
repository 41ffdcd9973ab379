"""Survey of a dataset before use: layout, images, split, problems and warnings."""

import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from defectlab.data.manifest.accounting import account
from defectlab.data.manifest.bit_depth import check_bit_depth, fits
from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.groups import NEAR_DUPLICATES, find_groups, groups_by
from defectlab.data.manifest.image_folders import Role
from defectlab.data.manifest.layouts import Layout, detect, named
from defectlab.data.manifest.mask_checks import read_masks
from defectlab.data.manifest.options import DataOptions
from defectlab.data.manifest.protocol import Protocol
from defectlab.data.manifest.region_options import check_sizes, read_region
from defectlab.data.manifest.scan import Item, scan
from defectlab.data.manifest.splits import assign
from defectlab.utils.paths import resolve
from defectlab_runtime.errors import OptionError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """A dataset as found on disk; `splits` holds the readable images that are assigned to a split."""

    name: str
    root: Path
    layout: Layout
    seed: int
    items: tuple[Item, ...]
    splits: tuple[tuple[Item, Role], ...]
    protocol: Protocol
    findings: Findings


def survey(options: DataOptions) -> Survey:
    """Read and split a dataset, collecting problems of its images in `findings` instead of raising them.

    Raises:
        OptionError: An option that cannot work.
        DataError: No root, or no layout that could be read.
    """
    options = options.checked()
    root, layout = _layout(options)
    region = read_region(root, options)
    findings = Findings()
    account(root, layout, options, findings)
    items = scan(root, layout, options, findings)
    check_sizes(region, items, findings)
    copies: list[list[str]] = []
    groups = None
    if options.group == NEAR_DUPLICATES:
        copies = _find_copies(root, items, options.bit_depth, findings)
        groups = groups_by((item.path for item in items), options.group, copies)
    elif options.group is not None:
        groups = find_groups((item.path for item in items), options.group, findings)
    splits, protocol = assign(items, options, findings, groups)
    check_bit_depth({item.path: item.facts for item in items}, options.bit_depth, findings)
    protocol = replace(
        protocol,
        bit_depth=options.bit_depth,
        task=options.task,
        missing_masks=_missing_masks(splits, options, findings),
        copies=copies,
        mask_reading=read_masks(items, options, findings),
    )
    known = [(item, role) for item, role in splits if item.label >= 0]
    if groups is not None:
        _check_groups(known, groups, options, findings)
    _check_duplicates(known, options.on_duplicate, findings)
    _check_labels(protocol, findings)
    _check_validation(protocol, options, findings)
    assert options.seed is not None, "checked options have a seed"
    return Survey(options.name or root.name, root, layout, options.seed, items, tuple(splits), protocol, findings)


def _find_copies(root: Path, items: Sequence[Item], bit_depth: int | None, findings: Findings) -> list[list[str]]:
    """Return the sets of images that are copies of one photograph, whatever folder they lie in."""
    from defectlab.data.manifest.near_duplicates import sets_of_copies

    contents = {item.path: item.facts.sha256 for item in items if fits(item.facts, bit_depth)}
    copies = sets_of_copies(root, contents, bit_depth)
    findings.choose(
        f"{sum(map(len, copies))} of {len(items)} images are near-duplicates of another, in {len(copies)} sets (group "
        f"{NEAR_DUPLICATES}); splits keep each set whole."
    )
    return copies


def _layout(options: DataOptions) -> tuple[Path, Layout]:
    """Return the root and its layout, which is detected unless `normal_dir` is given."""
    if options.task == "classification":
        options = replace(options, mask_dir=None, val_mask_dir=None)
    given = options.folders()
    if "normal_dir" in given:
        for masks, images in (("mask_dir", "abnormal_dir"), ("val_mask_dir", "abnormal_val_dir")):
            if masks in given and images not in given:
                raise OptionError(f"Data: {masks} is given without {images}: masks belong to anomalous images.")
        return named(options)
    if given:
        raise OptionError("Data: folders are given without normal_dir. Give normal_dir too, or root alone.")
    if options.root is None:
        raise OptionError("Data: give root, or normal_dir.")
    root = Path(os.path.normpath(resolve(options.root)))
    layout = detect(root)
    if options.task == "classification":
        layout = replace(layout, mask_dirs=None, val_mask_dirs=None)
    logger.info("Layout %s recognised in %s: %s", layout.name, root, layout.describe().replace("\n", "; "))
    return root, layout


def _missing_masks(splits: Sequence[tuple[Item, Role]], options: DataOptions, findings: Findings) -> str | None:
    """Return the rule for defects without a mask in a dataset with masks, and report it; None if it does not apply."""
    defects = [item for item, _ in splits if item.label == 1]
    bare = [item for item in defects if item.mask is None]
    if options.task == "segmentation" and defects and len(bare) == len(defects):
        fix = "add masks (ground_truth/<defect>, or mask_dir), or say task: classification"
        findings.problem(f"No masks, but task is segmentation: {fix}", [f"{len(bare)} anomalous images"])
    if options.missing_masks == "error" or not bare or len(bare) == len(defects):
        return None
    done = "count as defect as a whole" if options.missing_masks == "whole" else "are left out of the pixel metrics"
    findings.choose(f"{len(bare)} of {len(defects)} anomalous images have no mask: they {done} (missing_masks).")
    return options.missing_masks


def _check_duplicates(splits: Sequence[tuple[Item, Role]], on_duplicate: str, findings: Findings) -> None:
    """Report files of equal content in two splits, under both labels, as two kinds of defect, or twice in one split."""
    by_content: dict[str, list[tuple[Item, Role]]] = defaultdict(list)
    for item, role in splits:
        by_content[item.facts.sha256].append((item, role))
    lines: dict[str, list[str]] = defaultdict(list)
    for equal in by_content.values():
        if len(equal) < 2:
            continue
        parted, several = len({role for _, role in equal}) > 1, len({item.defect for item, _ in equal}) > 1
        title = "twice within one split"
        if len({item.label for item, _ in equal}) > 1:
            title = "labelled good and anomalous"
        elif parted or several:
            title = ", ".join(["as two kinds of defect"] * several + ["in two splits"] * parted)
        lines[title].append(", ".join(f"{item.path} ({role})" for item, role in equal))
    report = findings.problem if on_duplicate == "error" else findings.warn
    fix = "" if on_duplicate == "warn" else ": remove one, or say on_duplicate: warn"
    for title in ("in two splits", "as two kinds of defect, in two splits", "labelled good and anomalous"):
        report(f"The same content {title}{fix}", lines[title])
    for title in ("as two kinds of defect", "twice within one split"):
        findings.warn(f"The same content {title}", lines[title])


def _check_groups(
    splits: Sequence[tuple[Item, Role]], groups: Mapping[str, str], options: DataOptions, findings: Findings
) -> None:
    """Report parts that have images in several splits, which would leak training data into the test."""
    first_paths: dict[str, dict[str, str]] = defaultdict(dict)
    for item, role in splits:
        first_paths[groups[item.path]].setdefault(role, item.path)
    lines = [
        f"{name}: " + ", ".join(f"{path} ({split})" for split, path in sorted(paths.items()))
        for name, paths in first_paths.items()
        if len(paths) > 1
    ]
    if options.on_duplicate == "warn":
        findings.warn("The same part in two splits", lines)
        return
    if options.group == NEAR_DUPLICATES:
        fix = "remove one of each or move them into one folder, since folders decide their split"
    else:
        fix = (
            "move them into one folder; or, where equal names mean different parts, let group take in the folder, "
            "such as (.*/\\d+)_"
        )
    fix += "; or say on_duplicate: warn"
    findings.problem(f"The same part in two splits: {fix}", lines)


def _check_labels(protocol: Protocol, findings: Findings) -> None:
    """Warn about a validation or test split with one label only, in a dataset with anomalous images."""
    if sum(split["anomalous"] for split in protocol.counts.values()) == 0:
        return
    for split in ("validation", "test"):
        counts = protocol.counts[split]
        if sum(counts.values()) and (split == "test" or protocol.val_split_mode != "from_train"):
            lines = [f"{split} has {counts['good']} good and {counts['anomalous']} anomalous images"]
            findings.warn("A split with one label only", lines if 0 in counts.values() else [])


def _check_validation(protocol: Protocol, options: DataOptions, findings: Findings) -> None:
    """Warn where no image validates though that was not asked for: a run has then no thresholds."""
    asked = "none" in (options.val_split_mode, protocol.val_split_mode) or options.val_split_ratio == 0
    validating = protocol.counts["validation"]
    if protocol.validation_is_test or asked or any(validating.values()):
        return
    test = protocol.counts["test"]
    there = f"{test['good']} good and {test['anomalous']} anomalous images in all are too few to share"
    if protocol.val_split_mode != "from_test":
        there = f"val_split_mode {protocol.val_split_mode} gives none"
    findings.warn(
        "No validation images, so no thresholds, no labels and no F1",
        [f"{there}: add images; or say val_split_mode: from_train, or same_as_test (figures are then an oracle's)"],
    )
