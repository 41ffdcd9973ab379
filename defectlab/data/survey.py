"""Everything found out about a dataset before it is used: layout, images, split, problems and warnings."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from defectlab.data.layouts import Dirs, Layout, as_tuple, detect, named
from defectlab.data.problems import Findings
from defectlab.data.scan import Item, Role, scan
from defectlab.data.splits import Protocol, SplitOptions, assign
from defectlab.errors import OptionError, unknown_name
from defectlab.paths import resolve

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """A dataset as found on disk; `splits` holds the readable images that the options put to use."""

    name: str
    root: Path
    layout: Layout
    seed: int
    items: tuple[Item, ...]
    splits: tuple[tuple[Item, Role], ...]
    protocol: Protocol
    findings: Findings


def survey(
    root: str | os.PathLike[str] | None,
    *,
    name: str | None,
    normal_dir: Dirs,
    abnormal_dir: Dirs,
    normal_test_dir: Dirs,
    mask_dir: Dirs,
    normal_val_dir: Dirs,
    abnormal_val_dir: Dirs,
    val_mask_dir: Dirs,
    extensions: Iterable[str] | str | None,
    test_split_mode: str | Enum | None,
    test_split_ratio: float,
    val_split_mode: str | Enum | None,
    val_split_ratio: float,
    seed: int,
    on_duplicate: str,
) -> Survey:
    """Read and split the dataset without raising its problems (see `build_manifest` for the arguments).

    Raises:
        OptionError: An option that cannot work.
        DataError: No root, or no layout that could be read.
    """
    options = SplitOptions.checked(test_split_mode, test_split_ratio, val_split_mode, val_split_ratio, seed)
    if on_duplicate not in ("error", "warn"):
        raise OptionError(unknown_name("on_duplicate", str(on_duplicate), ("error", "warn")))
    findings = Findings()
    if not as_tuple(normal_dir):
        others = (abnormal_dir, normal_test_dir, mask_dir, normal_val_dir, abnormal_val_dir, val_mask_dir)
        if any(as_tuple(other) for other in others):
            raise OptionError("Data: folders are given without normal_dir. Give normal_dir too, or root alone.")
        if root is None:
            raise OptionError("Data: give root, or normal_dir.")
        base = Path(os.path.normpath(resolve(os.fspath(root))))
        layout = detect(base)
        folders = layout.describe().replace("\n", "; ")
        logger.info("Layout %s recognised in %s: %s", layout.name, base, folders)
    else:
        for masks, images, owner in ((mask_dir, abnormal_dir, ""), (val_mask_dir, abnormal_val_dir, "val")):
            if as_tuple(masks) and not as_tuple(images):
                given, needed = ("val_mask_dir", "abnormal_val_dir") if owner else ("mask_dir", "abnormal_dir")
                raise OptionError(f"Data: {given} is given without {needed}: masks belong to anomalous images.")
        base, layout = named(
            root,
            normal_dir=normal_dir,
            abnormal_dir=abnormal_dir,
            normal_test_dir=normal_test_dir,
            mask_dir=mask_dir,
            normal_val_dir=normal_val_dir,
            abnormal_val_dir=abnormal_val_dir,
            val_mask_dir=val_mask_dir,
        )
    items = scan(base, layout, extensions, findings)
    splits, protocol = assign(items, options, findings)
    _check_duplicates(splits, on_duplicate, findings)
    _check_labels(protocol, findings)
    return Survey(name or base.name, base, layout, seed, items, tuple(splits), protocol, findings)


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
    fix = "" if on_duplicate == "warn" else ": remove one, or pass on_duplicate='warn'"
    report(f"The same content in two splits{fix}", across)
    report(f"The same content labelled good and anomalous{fix}", labels)
    findings.warn("The same content twice within one split", within)


def _check_labels(protocol: Protocol, findings: Findings) -> None:
    """Warn where a threshold or a metric will lack one of the two labels although the dataset has both."""
    if sum(split["anomalous"] for split in protocol.counts.values()) == 0:
        return
    for split in ("validation", "test"):
        counts = protocol.counts[split]
        if sum(counts.values()) and (split == "test" or protocol.val_split_mode != "from_train"):
            lines = [f"{split} has {counts['good']} good and {counts['anomalous']} anomalous images"]
            findings.warn("A split with one label only", lines if 0 in counts.values() else [])
