"""A dataset with more good training images, its validation and test images unchanged. Does not use torch."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from defectlab.data.image_facts import probe_all
from defectlab.data.manifest.bit_depth import fits
from defectlab.data.manifest.groups import NEAR_DUPLICATES, group_of, has_group
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
        DataError: Images that are in its validation or test set, that show a part of these (`data.group`), that cannot
            be read, or images of the manifest that are missing or have changed since.
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
        elif not fits(facts, manifest.protocol.bit_depth):
            problems.append(f"{paths.relative(image)}: values beyond bit_depth {manifest.protocol.bit_depth}")
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
    pattern, groups = manifest.protocol.group, manifest.groups
    if pattern is None or groups is None:
        return []
    new = [entry for entry in manifest.split("train") if entry.sha256 in added]
    if pattern == NEAR_DUPLICATES:
        return _copies(manifest, new)
    held = {groups[entry.path]: entry for entry in manifest.entries if entry.split != "train"}
    parts = [(entry, _part_of(entry.path, pattern)) for entry in new]
    return [
        f"{entry.path} shows part {part}, as does {held[part].path} in {held[part].split}"
        for entry, part in parts
        if part in held
    ]


def _part_of(path: str, pattern: str) -> str:
    """Return the part that an added image shows.

    The pattern is one for paths below the root. The folders above an image from elsewhere, such as those of a year, are
    none of it, so that its file's name is looked at alone; where that does not have the pattern, the whole path is.
    """
    name = PurePosixPath(path).name
    return group_of(name if PurePosixPath(path).is_absolute() and has_group(name, pattern) else path, pattern)


def _copies(manifest: Manifest, new: Sequence[Entry]) -> list[str]:
    """Return a line for each added image that is a near-duplicate of a validation or test image."""
    from defectlab.data.manifest.near_duplicates import near_duplicates

    known = {entry.path: entry for entry in (*new, *(one for one in manifest.entries if one.split != "train"))}
    splits = {path: "train" if entry.split == "train" else "held" for path, entry in known.items()}
    contents = {path: entry.sha256 for path, entry in known.items()}
    lines = []
    for pair in near_duplicates(manifest.root, splits, contents, manifest.protocol.bit_depth):
        image, copy = sorted((known[pair.one], known[pair.other]), key=lambda entry: entry.split != "train")
        lines.append(f"{image.path} is a near-duplicate of {copy.path}, which is in {copy.split}")
    return lines


def _changed(manifest: Manifest) -> list[str]:
    """Return a line for each image that is missing or whose content has changed since the manifest was made."""
    found = probe_all([manifest.absolute(entry) for entry in manifest.entries])
    pairs = [(one, facts) for one, facts in zip(manifest.entries, found, strict=True) if facts.sha256 != one.sha256]
    if pairs and not manifest.root.is_dir():
        return [f"the run's images are no longer in {manifest.root}: bring the folder back"]
    return [
        f"{entry.path} has changed since the run" if facts.sha256 else f"{entry.path} of the run: {facts.problem}"
        for entry, facts in pairs
    ]
