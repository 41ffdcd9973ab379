"""A dataset with more good training images, its validation and test images unchanged. Does not use torch."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from defectlab.data.image_facts import probe_all
from defectlab.data.manifest.layouts import relative_to_root
from defectlab.data.manifest.manifest import Entry, Manifest
from defectlab.utils import paths
from defectlab_runtime.errors import DataError
from defectlab_runtime.image_files import path_order

logger = logging.getLogger(__name__)


def with_training_images(manifest: Manifest, images: Sequence[Path], what: str = "") -> Manifest:
    """Return the manifest with more good training images; those that it trains on already are left out.

    Args:
        manifest: Of a run.
        images: Absolute paths.
        what: Which images these are, for log and warnings, such as "confirmed in a review".

    Raises:
        DataError: Images that are in its validation or test set, that show a part of these (`data.group`), unreadable
            ones, or images of the manifest that have changed since.
    """
    problems = _changed(manifest)
    known = {entry.sha256: entry for entry in manifest.entries}
    template = manifest.split("train")[0]
    added: dict[str, Entry] = {}
    twice = 0
    for image, facts in zip(images, probe_all(images), strict=True):
        earlier = known.get(facts.sha256)
        if facts.problem:
            problems.append(f"{paths.relative(image)}: {facts.problem}")
        elif earlier is not None and earlier.split != "train":
            problems.append(f"{paths.relative(image)} is {earlier.path}, which is in {earlier.split}")
        elif earlier is not None or facts.sha256 in added:
            twice += 1
        else:
            place = relative_to_root(manifest.root, image)
            added[facts.sha256] = replace(
                template, path=place, sha256=facts.sha256, width=facts.width, height=facts.height
            )
    entries = tuple(sorted((*manifest.entries, *added.values()), key=lambda entry: path_order(entry.path)))
    if not problems:
        problems = _shared_parts(replace(manifest, entries=entries), set(added))
    if problems:
        raise DataError("These images cannot be trained on together:\n  " + "\n  ".join(problems))
    if twice:
        logger.info("%d of these images are trained on already", twice)
    which = f"good images{f' {what}' if what else ''}"
    logger.info("%d %s are added to %d", len(added), which, len(manifest.split("train")))
    counts = {split: dict(kinds) for split, kinds in manifest.protocol.counts.items()}
    counts["train"]["good"] += len(added)
    return replace(
        manifest,
        entries=entries,
        protocol=replace(manifest.protocol, counts=counts),
        warnings=(*manifest.warnings, f"{len(added)} {which} were added to training"),
    )


def _shared_parts(manifest: Manifest, added: set[str]) -> list[str]:
    """Return a line for each added image of a part that validation or test images show too."""
    groups = manifest.groups
    if groups is None:
        return []
    held = {groups[entry.path]: entry for entry in manifest.entries if entry.split != "train"}
    new = [entry for entry in manifest.split("train") if entry.sha256 in added and groups[entry.path] in held]
    return [
        f"{entry.path} shows part {groups[entry.path]}, as does {held[groups[entry.path]].path} in "
        f"{held[groups[entry.path]].split}"
        for entry in new
    ]


def _changed(manifest: Manifest) -> list[str]:
    """Return a line for each image whose content has changed since the manifest was made."""
    found = probe_all([manifest.absolute(entry) for entry in manifest.entries])
    pairs = zip(manifest.entries, found, strict=True)
    return [f"{entry.path} has changed since the run" for entry, facts in pairs if facts.sha256 != entry.sha256]
