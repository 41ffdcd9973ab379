"""Everything found out about a dataset before it is used: layout, images, split, problems and warnings."""

import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.groups import compiled, find_parts, parted
from defectlab.data.manifest.layouts import Layout, detect, named
from defectlab.data.manifest.options import DataRequest
from defectlab.data.manifest.region_options import check_sizes, read_area
from defectlab.data.manifest.scan import Item, MaskRules, Role, scan
from defectlab.data.manifest.splits import Protocol, SplitOptions, assign
from defectlab.utils.errors import OptionError, unknown_name
from defectlab.utils.paths import resolve

logger = logging.getLogger(__name__)

MISSING_MASKS = ("error", "whole", "leave_out")
TASKS = ("segmentation", "classification")


@dataclass(frozen=True)
class Survey:
    """A dataset as found on disk; `splits` holds the readable images that the options put to use.

    `parts` maps each path to the part it shows, None without `group`.
    """

    name: str
    root: Path
    layout: Layout
    seed: int
    items: tuple[Item, ...]
    splits: tuple[tuple[Item, Role], ...]
    protocol: Protocol
    findings: Findings
    parts: Mapping[str, str] | None = None


def survey(request: DataRequest) -> Survey:
    """Read and split the dataset without raising its problems (see `build_manifest` for what is asked for).

    Raises:
        OptionError: An option that cannot work.
        DataError: No root, or no layout that could be read.
    """
    options = SplitOptions.checked(
        request.test_split_mode,
        request.test_split_ratio,
        request.val_split_mode,
        request.val_split_ratio,
        request.seed,
        request.n_val_good,
    )
    _check_choices(request)
    base, layout = _layout(request)
    area = read_area(base, request.valid_area_mask, request.crop_area)
    findings = Findings()
    items = scan(base, layout, request.extensions, findings, MaskRules(request.mask_suffix, request.missing_masks))
    check_sizes(area, items, findings)
    parts = None if request.group is None else find_parts((item.path for item in items), request.group, findings)
    splits, protocol = assign(items, options, findings, request.group, parts)
    protocol = replace(protocol, task=request.task, missing_masks=_missing_masks(splits, request, findings))
    known = [(item, role) for item, role in splits if item.label >= 0]
    if parts is not None:
        _check_parts(known, parts, request.on_duplicate, findings)
    _check_duplicates(known, request.on_duplicate, findings)
    _check_labels(protocol, findings)
    name = request.name or base.name
    return Survey(name, base, layout, request.seed, items, tuple(splits), protocol, findings, parts)


def _layout(request: DataRequest) -> tuple[Path, Layout]:
    """Return the root and its layout, recognised unless `normal_dir` is given."""
    given = request.folders()
    if request.task == "classification":
        given = {argument: dirs for argument, dirs in given.items() if not argument.endswith("mask_dir")}
        request = replace(request, mask_dir=None, val_mask_dir=None)
    if "normal_dir" in given:
        for masks, images in (("mask_dir", "abnormal_dir"), ("val_mask_dir", "abnormal_val_dir")):
            if masks in given and images not in given:
                raise OptionError(f"Data: {masks} is given without {images}: masks belong to anomalous images.")
        return named(request)
    if given:
        raise OptionError("Data: folders are given without normal_dir. Give normal_dir too, or root alone.")
    if request.root is None:
        raise OptionError("Data: give root, or normal_dir.")
    base = Path(os.path.normpath(resolve(os.fspath(request.root))))
    layout = detect(base)
    if request.task == "classification":
        layout = replace(layout, mask_dirs=None, val_mask_dirs=None)
    logger.info("Layout %s recognised in %s: %s", layout.name, base, layout.describe().replace("\n", "; "))
    return base, layout


def _check_choices(request: DataRequest) -> None:
    """Refuse options that no image could make work."""
    for name, value, allowed in (
        ("on_duplicate", request.on_duplicate, ("error", "warn")),
        ("missing_masks", request.missing_masks, MISSING_MASKS),
        ("task", request.task or TASKS[0], TASKS),
    ):
        if value not in allowed:
            raise OptionError(unknown_name(name, str(value), allowed))
    if request.mask_suffix is not None and not isinstance(request.mask_suffix, str):
        raise OptionError(f"Data: mask_suffix must be a text such as _mask, got {request.mask_suffix!r}.")
    if request.group is not None:
        compiled(request.group)


def _missing_masks(splits: Sequence[tuple[Item, Role]], request: DataRequest, findings: Findings) -> str | None:
    """Return what is done with defects without a mask where others have one, and say it; None: there are none."""
    defects = [item for item, _ in splits if item.label == 1]
    bare = [item for item in defects if item.mask is None]
    if request.task == "segmentation" and defects and len(bare) == len(defects):
        fix = "add masks (ground_truth/<defect>, or mask_dir), or say task: classification"
        findings.problem(f"No masks, but task is segmentation: {fix}", [f"{len(bare)} anomalous images"])
    if request.missing_masks == "error" or not bare or len(bare) == len(defects):
        return None
    done = "count as defect as a whole" if request.missing_masks == "whole" else "are left out of the pixel metrics"
    findings.choose(f"{len(bare)} of {len(defects)} anomalous images have no mask: they {done} (missing_masks).")
    return request.missing_masks


def _check_duplicates(splits: Sequence[tuple[Item, Role]], on_duplicate: str, findings: Findings) -> None:
    """Find equal files: on both sides of a border they falsify the figures, within one split they weigh double."""
    by_content: dict[str, list[tuple[Item, Role]]] = defaultdict(list)
    for item, role in splits:
        by_content[item.facts.sha256].append((item, role))
    across, labels, within = [], [], []
    for group in by_content.values():
        if len(group) < 2:
            continue
        line = ", ".join(f"{item.path} ({role})" for item, role in group)
        if len({item.label for item, _ in group}) > 1:
            labels.append(line)
        elif len({role for _, role in group}) > 1:
            across.append(line)
        else:
            within.append(line)
    report = findings.problem if on_duplicate == "error" else findings.warn
    fix = "" if on_duplicate == "warn" else ": remove one, or say on_duplicate: warn"
    report(f"The same content in two splits{fix}", across)
    report(f"The same content labelled good and anomalous{fix}", labels)
    findings.warn("The same content twice within one split", within)


def _check_parts(
    splits: Sequence[tuple[Item, Role]], parts: Mapping[str, str], on_duplicate: str, findings: Findings
) -> None:
    """Find parts that the folders themselves put into two splits: the test would know them from training."""
    lines = parted({item.path: role for item, role in splits}, parts)
    if on_duplicate == "error":
        fix = (
            "move them into one folder; or, where equal names mean different parts, let group take in the folder, "
            "such as (.*/\\d+)_; or say on_duplicate: warn"
        )
        findings.problem(f"The same part in two splits: {fix}", lines)
    else:
        findings.warn("The same part in two splits", lines)


def _check_labels(protocol: Protocol, findings: Findings) -> None:
    """Warn where a threshold or a metric will lack one of the two labels although the dataset has both."""
    if sum(split["anomalous"] for split in protocol.counts.values()) == 0:
        return
    for split in ("validation", "test"):
        counts = protocol.counts[split]
        if sum(counts.values()) and (split == "test" or protocol.val_split_mode != "from_train"):
            lines = [f"{split} has {counts['good']} good and {counts['anomalous']} anomalous images"]
            findings.warn("A split with one label only", lines if 0 in counts.values() else [])
