"""The image folders of a layout with their files, and the labels of annotated ones. Does not use torch."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.folder_names import kind_names
from defectlab.data.manifest.layouts import Layout, closest_folder, relative_to_root
from defectlab_runtime.errors import DataError
from defectlab_runtime.image_files import list_images, nfc, normalised_extensions

Role = Literal["train", "test", "validation"]
LABELS = {"0": 0, "1": 1}


@dataclass(frozen=True)
class ImageFolder:
    """The images of one folder of the layout, or those with one label in an annotation file."""

    option: str
    folder: str
    role: Role
    label: int
    files: list[Path]
    defect: str = ""  # empty: the folder's name


def image_folders(
    root: Path, layout: Layout, extensions: Iterable[str] | str | None, findings: Findings
) -> list[ImageFolder]:
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
    everything |= {Path(root, folder) for folder in layout.all_mask_dirs}
    found: list[ImageFolder] = []
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
        found.append(ImageFolder(name, folder, role, label, files, kinds.get(folder, "")))
    return [*found, *_annotated_folders(root, layout, extensions, findings)]


def _annotated_folders(
    root: Path, layout: Layout, extensions: Iterable[str] | str | None, findings: Findings
) -> list[ImageFolder]:
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
            found.append(ImageFolder("annotated_dir", folder, "test", label, own, defect))
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
