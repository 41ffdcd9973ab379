"""Reading of a layout's images and masks, with all problems collected as findings."""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from defectlab.data.image_facts import ImageFacts, probe_all
from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.good_masks import masks_of_good
from defectlab.data.manifest.image_folders import Role, image_folders
from defectlab.data.manifest.layouts import Layout, relative_to_root
from defectlab.data.manifest.mask_pairs import pair_all, without_masks
from defectlab.data.manifest.options import DataOptions
from defectlab_runtime.image_files import nfc, path_order

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """One readable image: its path, its role in the layout, its label, its facts and those of its mask.

    `unused_mask` is that of a good image, which is only looked at.
    """

    path: str  # posix, relative to the root
    role: Role
    label: int  # 0 good, 1 anomalous, -1 unknown
    defect: str
    facts: ImageFacts
    mask: str | None = None
    mask_facts: ImageFacts | None = None
    mask_orientation: int = 1  # to be applied to the mask beside its own
    unused_mask: str | None = None
    unused_mask_facts: ImageFacts | None = None


def scan(root: Path, layout: Layout, options: DataOptions, findings: Findings) -> tuple[Item, ...]:
    """Read every image and mask of the layout once, and return the usable images sorted by path."""
    started = time.monotonic()
    folders = image_folders(root, layout, options.extensions, findings)
    given = [path for folder in folders for path in folder.files]
    known = dict(zip(given, probe_all(given), strict=True))
    folders, beside, beside_good = without_masks(root, folders, known, options, findings)
    masks = beside | pair_all(root, layout, folders, options, findings)
    tested_first = sorted(folders, key=lambda folder: folder.role == "train")
    good = [(folder.folder, folder.files) for folder in tested_first if folder.label == 0]
    unused = beside_good | masks_of_good(root, layout, good, masks.values(), options.mask_suffix)

    images = [(folder, path) for folder in folders for path in folder.files]
    facts = [known[path] for _, path in images]
    mask_paths = sorted(set(masks.values()))
    mask_facts = dict(zip(mask_paths, probe_all(mask_paths, as_masks=True), strict=True))
    unused_facts = dict(zip(unused, probe_all(list(unused.values()), as_masks=True), strict=True))

    items = []
    for (folder, path), fact in zip(images, facts, strict=True):
        if fact.problem:
            continue
        kind = {0: "good", -1: "unknown"}.get(folder.label, folder.defect)
        defect = kind or Path(root, folder.folder).name
        item = Item(relative_to_root(root, path), folder.role, folder.label, defect, fact)
        if (mask := masks.get(path)) is not None:
            drawn_on_stored = options.mask_orientation == "stored" and mask_facts[mask].orientation == 1
            item = replace(
                item,
                mask=relative_to_root(root, mask),
                mask_facts=mask_facts[mask],
                mask_orientation=fact.orientation if drawn_on_stored else 1,
            )
        if path in unused:
            name = relative_to_root(root, unused[path])
            item = replace(item, unused_mask=name, unused_mask_facts=unused_facts[path])
        items.append(item)
    findings.problem("Two files of one name, its accents stored in two ways: rename one", _names_spelled_twice(items))
    read = [*((path, fact) for (_, path), fact in zip(images, facts, strict=True)), *mask_facts.items()]
    unreadable = [f"{relative_to_root(root, path)}: {fact.problem}" for path, fact in read if fact.problem]
    findings.problem("Unreadable or truncated files: replace or remove them", unreadable)
    pages = [f"{relative_to_root(root, path)}: {fact.pages} pages" for path, fact in read if fact.pages > 1]
    findings.warn("Files of several pages: the first page alone is used", pages)
    logger.info("Read %d images and %d masks in %.1f s", len(images), len(mask_paths), time.monotonic() - started)
    return tuple(sorted(items, key=lambda item: path_order(item.path)))


def _names_spelled_twice(items: Iterable[Item]) -> list[str]:
    """Return a line for each name shared by several files that differ only in the Unicode form of their names."""
    known: dict[str, list[str]] = defaultdict(list)
    for item in items:
        known[nfc(item.path)].append(item.path)
    return [", ".join(map(ascii, paths)) for paths in known.values() if len(paths) > 1]
