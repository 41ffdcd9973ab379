"""Reading of a layout's images and masks, with all problems collected as findings."""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from defectlab.data.images import ImageFacts, list_images, nfc, normalised_extensions, path_order, probe_all
from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.folder_names import kind_names
from defectlab.data.manifest.good_masks import masks_of_good
from defectlab.data.manifest.layouts import Layout, closest_folder, relative_to_root, subfolders
from defectlab.data.manifest.mask_recognition import MaskAmongImages, masks_among, two_valued
from defectlab.data.manifest.masks import mask_folders, pair_masks
from defectlab.data.manifest.options import DataOptions
from defectlab.data.manifest.proposals import with_changes
from defectlab.utils.errors import DataError

logger = logging.getLogger(__name__)

Role = Literal["train", "test", "validation"]


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


@dataclass(frozen=True)
class _ImageFolder:
    """The images of one folder of the layout, or those with one label in an annotation file."""

    option: str
    folder: str
    role: Role
    label: int
    files: list[Path]
    defect: str = ""  # empty: the folder's name


def scan(root: Path, layout: Layout, options: DataOptions, findings: Findings) -> tuple[Item, ...]:
    """Read every image and mask of the layout once, and return the usable images sorted by path."""
    started = time.monotonic()
    folders = _image_folders(root, layout, options.extensions, findings)
    given = [path for folder in folders for path in folder.files]
    known = dict(zip(given, probe_all(given), strict=True))
    folders, beside, beside_good = _without_masks(root, folders, known, options, findings)
    masks = beside | _pair_all(root, layout, folders, options, findings)
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


def _image_folders(
    root: Path, layout: Layout, extensions: Iterable[str] | str | None, findings: Findings
) -> list[_ImageFolder]:
    """Return the files of each image folder; a file in nested folders belongs to the deepest given folder."""
    roles: list[tuple[str, tuple[str, ...], Role, int]] = [
        ("normal_dir", layout.normal_dirs, "train", 0),
        ("normal_test_dir", layout.normal_test_dirs, "test", 0),
        ("abnormal_dir", layout.abnormal_dirs, "test", 1),
        ("normal_val_dir", layout.normal_val_dirs, "validation", 0),
        ("abnormal_val_dir", layout.abnormal_val_dirs, "validation", 1),
        ("unknown_dir", layout.unknown_dirs, "test", -1),
    ]
    given = [(name, folder, role, label) for name, folders, role, label in roles for folder in folders]
    everything = {Path(root, folder) for _, folder, _, _ in given}
    everything |= {Path(root, folder) for folder in _given_mask_folders(layout)}
    found: list[_ImageFolder] = []
    is_named = layout.name == "named"
    kinds = kind_names(layout.abnormal_dirs) | kind_names(layout.abnormal_val_dirs) if is_named else {}
    owners: dict[Path, str] = {}
    for name, folder, role, label in given:
        path = Path(root, folder)
        if not path.is_dir():
            findings.problem("Missing folders", [f"{name} {folder!r}: no such folder.{closest_folder(root, folder)}"])
            continue
        if path in owners:
            findings.problem("Folders given twice", [f"{folder!r} as {owners[path]} and as {name}"])
            continue
        owners[path] = name
        inner = [other for other in everything if other != path and other.is_relative_to(path)]
        files = [f for f in list_images(path, extensions) if not any(f.is_relative_to(other) for other in inner)]
        if not files:
            endings = ", ".join(normalised_extensions(extensions))
            findings.problem("Folders without images", [f"{name} {folder!r} has no file that ends in {endings}"])
        files = _with_valid_names(root, files, findings)
        found.append(_ImageFolder(name, folder, role, label, files, kinds.get(folder, "")))
    return [*found, *_annotated_folders(root, layout, extensions, findings)]


def _annotated_folders(
    root: Path, layout: Layout, extensions: Iterable[str] | str | None, findings: Findings
) -> list[_ImageFolder]:
    """Return the test images labelled by annotation files; a single validation kind also names their defect."""
    kinds = [Path(folder).name for folder in layout.abnormal_val_dirs]
    defect = kinds[0] if len(kinds) == 1 else "anomalous"
    found = []
    for folder, annotation in zip(layout.annotated_dirs, layout.annotations, strict=True):
        files = _with_valid_names(root, list_images(Path(root, folder), extensions), findings)
        if not files:
            findings.problem("Folders without images", [f"{folder} has no images"])
        names = {path.relative_to(Path(root, folder)).as_posix(): path for path in files}
        labels = read_labels(Path(root, annotation), names, annotation, findings)
        for label in (0, 1):
            own = [path for name, path in names.items() if labels.get(name) == label]
            found.append(_ImageFolder("annotated_dir", folder, "test", label, own, defect))
    return found


def _with_valid_names(root: Path, files: list[Path], findings: Findings) -> list[Path]:
    """Return the files whose names are valid Unicode, and report the others, which records cannot store."""
    bad = [path for path in files if not _is_text(str(path))]
    lines = [ascii(relative_to_root(root, path)) for path in bad]
    findings.problem("File names that are not valid Unicode: rename them", lines)
    return [path for path in files if path not in set(bad)]


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _without_masks(
    root: Path,
    folders: Sequence[_ImageFolder],
    facts: Mapping[Path, ImageFacts],
    options: DataOptions,
    findings: Findings,
) -> tuple[list[_ImageFolder], dict[Path, Path], dict[Path, Path]]:
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
    folders: Sequence[_ImageFolder],
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


def _pair_all(
    root: Path, layout: Layout, folders: Sequence[_ImageFolder], options: DataOptions, findings: Findings
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
        every = (m for folder in _given_mask_folders(layout) for m in list_images(Path(root, folder)) if m not in own)
        orphans = {relative_to_root(root, mask) for mask in every if mask not in users}
        findings.warn("Masks without an image, not used", sorted(orphans, key=path_order))
    return pairs


def _mask_folders(
    root: Path, layout: Layout, folders: Sequence[_ImageFolder], options: DataOptions, findings: Findings
) -> Iterator[tuple[_ImageFolder, Path]]:
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
    root: Path, images: _ImageFolder, mask_folder: Path, options: DataOptions, findings: Findings
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


def _given_mask_folders(layout: Layout) -> tuple[str, ...]:
    return (*(layout.mask_dirs or ()), *(layout.val_mask_dirs or ()))


LABELS = {"0": 0, "1": 1}


def read_labels(file: Path, names: Iterable[str], where: str, findings: Findings) -> dict[str, int]:
    """Return the labels of the names that `file` labels exactly once, and report its errors as problems.

    `where` is what the file is called in problems. A line that names no image is only warned of.

    Raises:
        DataError: The file cannot be read as UTF-8 text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 text: {error}.") from error
    places: dict[str, list[int]] = defaultdict(list)
    labels: dict[str, int] = {}
    malformed = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = nfc(line.strip()).rpartition(" ")
        name = name.strip()
        if not name or label not in LABELS:
            malformed.append(f"{where} line {number}: {line.strip()!r}")
            continue
        places[name].append(number)
        labels[name] = LABELS[label]
    known = {nfc(name): name for name in names}
    doubled = {name for name, numbers in places.items() if len(numbers) > 1}
    findings.problem('Annotation lines that are no "name label", label 0 (good) or 1 (anomalous)', malformed)
    lines = [f"{name}: lines {' and '.join(map(str, places[name]))} of {where}" for name in sorted(doubled)]
    findings.problem("Images annotated twice: keep one line of each", lines)
    lines = [f"{name}: no line in {where}" for key, name in known.items() if key not in labels]
    findings.problem("Images without an annotation: add a line, or remove the image", lines)
    unused = [f"{where} line {places[name][0]}: {name}" for name in labels if name not in known]
    findings.warn("Annotations of images that are not there", unused)
    return {name: labels[key] for key, name in known.items() if key in labels and key not in doubled}
