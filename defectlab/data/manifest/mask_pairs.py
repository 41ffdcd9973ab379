"""The masks of a layout's images: in folders of their own, or beside the images. Does not use torch."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from defectlab.data.image_facts import ImageFacts
from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.image_folders import ImageFolder
from defectlab.data.manifest.layouts import Layout, closest_folder, relative_to_root, subfolders
from defectlab.data.manifest.mask_recognition import MaskAmongImages, masks_among, two_valued
from defectlab.data.manifest.masks import mask_folders, pair_masks
from defectlab.data.manifest.options import DataOptions
from defectlab.data.manifest.proposals import with_changes
from defectlab_runtime.errors import DataError
from defectlab_runtime.image_files import list_images, nfc, path_order


def without_masks(
    root: Path,
    folders: Sequence[ImageFolder],
    facts: Mapping[Path, ImageFacts],
    options: DataOptions,
    findings: Findings,
) -> tuple[list[ImageFolder], dict[Path, Path], dict[Path, Path]]:
    """Return the folders without the masks that lie among their images, and masks of anomalous and of good images.

    Unless `masks_beside_images` says what they are, masks among the images are a problem.
    """
    if options.masks_beside_images is False:
        return list(folders), {}, {}
    found = [
        one
        for images in folders
        for one in masks_among(root, Path(root, images.folder), images.files, facts.__getitem__, options.mask_suffix)
    ]
    named = {one.path for one in found}
    found += [one for one in two_valued(facts) if one.path not in named]
    masks = {one.path for one in found}
    images = [replace(folder, files=[path for path in folder.files if path not in masks]) for folder in folders]
    if not options.masks_beside_images:
        lines = [f"{relative_to_root(root, one.path)}: {one.reason}" for one in found]
        findings.problem("Masks among the images, which would be taken for photographs", lines)
        if found:
            changes = {"root": str(root), "mask_dir": None, "val_mask_dir": None, "masks_beside_images": True}
            title = "Options that pair masks with their images (masks_beside_images: false takes them for photographs)"
            findings.fix(title, with_changes(options, **changes))
        return images, {}, {}
    if not found:
        findings.warn(
            "masks_beside_images: no mask among the images", ["none is called as another, none has two values"]
        )
    return images, *_pair_beside(root, images, found, options, findings)


def _pair_beside(
    root: Path,
    folders: Sequence[ImageFolder],
    found: Sequence[MaskAmongImages],
    options: DataOptions,
    findings: Findings,
) -> tuple[dict[Path, Path], dict[Path, Path]]:
    """Return the masks of anomalous and of good images among the masks found beside the images."""
    masks: dict[Path, list[Path]] = defaultdict(list)
    for one in found:
        if one.image is not None:
            masks[one.image].append(one.path)
    orphans = [relative_to_root(root, one.path) for one in found if one.image is None]
    findings.warn("Masks without an image, not used", sorted(orphans, key=path_order))
    doubled = [
        f"{relative_to_root(root, image)} has {len(its)} masks: " + ", ".join(path.name for path in its)
        for image, its in masks.items()
        if len(its) > 1
    ]
    findings.problem("Names that fit twice: give each image and mask of a folder its own stem", doubled)
    anomalous = [path for folder in folders if folder.label == 1 for path in folder.files]
    pairs = {path: masks[path][0] for path in anomalous if path in masks}
    good = {path: masks[path][0] for folder in folders if folder.label == 0 for path in folder.files if path in masks}
    findings.choose(
        f"{len(found)} pictures beside the images are masks (masks_beside_images): {len(pairs)} of anomalous images, "
        f"{len(good)} of good ones, which are left out."
    )
    if options.task == "classification":
        return {}, {}
    missing = [path for path in anomalous if pairs and path not in pairs]
    _report_missing(root, dict.fromkeys(missing, "beside it"), options, findings)
    return pairs, good


def _report_missing(root: Path, images: Mapping[Path, str], options: DataOptions, findings: Findings) -> None:
    """Report images without a mask, each with where it was looked for, unless a rule says what they count as."""
    if options.missing_masks != "error":
        return
    fix = "add it, say missing_masks: whole or leave_out, or task: classification for image metrics only"
    lines = [f"{relative_to_root(root, image)}: no mask {where}" for image, where in images.items()]
    findings.problem(f"Images without a mask: {fix}", lines)


def pair_all(
    root: Path, layout: Layout, folders: Sequence[ImageFolder], options: DataOptions, findings: Findings
) -> dict[Path, Path]:
    """Return the mask of each anomalous image in the test and validation folders."""
    pairs: dict[Path, Path] = {}
    for images, mask_folder in _mask_folders(root, layout, folders, options, findings):
        pairs |= _pair_folder(root, images, mask_folder, options, findings)
    users: dict[Path, list[str]] = defaultdict(list)
    for image, mask in pairs.items():
        users[mask].append(relative_to_root(root, image))
    shared = [f"{relative_to_root(root, m)} fits {' and '.join(names)}" for m, names in users.items() if len(names) > 1]
    findings.problem("Masks that fit several images: give each abnormal folder its own mask folder", shared)
    if pairs:  # else every mask is without an image, and the images without masks say it already
        own = {path for folder in folders for path in folder.files}
        every = (m for folder in layout.all_mask_dirs for m in list_images(Path(root, folder)) if m not in own)
        orphans = {relative_to_root(root, mask) for mask in every if mask not in users}
        findings.warn("Masks without an image, not used", sorted(orphans, key=path_order))
    return pairs


def _mask_folders(
    root: Path, layout: Layout, folders: Sequence[ImageFolder], options: DataOptions, findings: Findings
) -> Iterator[tuple[ImageFolder, Path]]:
    """Yield each folder of anomalous images that has a folder of masks, with that folder."""
    for images_option, mask_option, abnormal_dirs, mask_dirs in (
        ("abnormal_dir", "mask_dir", layout.abnormal_dirs, layout.mask_dirs),
        ("abnormal_val_dir", "val_mask_dir", layout.abnormal_val_dirs, layout.val_mask_dirs),
    ):
        if mask_dirs is None:
            continue
        absent = [folder for folder in mask_dirs if not Path(root, folder).is_dir()]
        if options.missing_masks == "error" or layout.name == "named":
            lines = [f"{mask_option} {folder!r}: no such folder.{closest_folder(root, folder)}" for folder in absent]
            findings.problem("Missing folders", lines)
        try:
            paired, note = mask_folders([Path(root, f) for f in abnormal_dirs], [Path(root, f) for f in mask_dirs])
        except DataError as error:
            findings.problem("Mask folders", [str(error)])
            continue
        findings.warn("Mask folders", [note] if note else [])
        of_folder = dict(zip(abnormal_dirs, paired, strict=True))
        for images in folders:
            if images.option == images_option and of_folder[images.folder].is_dir():
                yield images, of_folder[images.folder]


def _pair_folder(
    root: Path, images: ImageFolder, mask_folder: Path, options: DataOptions, findings: Findings
) -> dict[Path, Path]:
    """Return the mask of each image in one folder of anomalous images, and report missing and ambiguous masks."""
    own = set(images.files)  # of an image folder that is given as its mask folder too
    source, masks = Path(root, images.folder), [path for path in list_images(mask_folder) if path not in own]
    pairing = pair_masks(
        [path.relative_to(source).as_posix() for path in images.files],
        [path.relative_to(mask_folder).as_posix() for path in masks],
        options.mask_suffix,
    )
    where = relative_to_root(root, mask_folder)
    like = {images.files[image]: masks[mask].name for image, mask in pairing.differing.items()}
    missing = {
        images.files[index]: f"in {where}" + _case_hint(like.get(images.files[index])) for index in pairing.missing
    }
    other = next((child.name for child in subfolders(mask_folder) if _differs_in_case(child.name, source.name)), None)
    if missing and other:  # a mask folder for several kinds, with a folder of this one
        missing = {path: f"in {where}" + _case_hint(f"{other}/") for path in missing}
    _report_missing(root, missing, options, findings)
    lines = [f"{images.folder}: {line}" for line in pairing.ambiguous]
    findings.problem("Names that fit twice: give each image and mask of a folder its own stem", lines)
    return {images.files[image]: masks[mask] for image, mask in pairing.masks.items()}


def _case_hint(name: str | None) -> str:
    return "" if name is None else f"; {name} differs in upper and lower case: rename it"


def _differs_in_case(one: str, other: str) -> bool:
    return nfc(one) != nfc(other) and nfc(one).casefold() == nfc(other).casefold()
