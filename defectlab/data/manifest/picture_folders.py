"""The folders with pictures below a root: how many each holds, and which options they would be given by. No torch."""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from defectlab.data.manifest.folder_names import BAD, MASKS, TEST, TRAIN, UNKNOWN, VALIDATION, plain, sounds_good
from defectlab_runtime.image_files import nfc, normalised_extensions, walk_folder

MAX_FOLDERS = 5000  # looked into; the root of named folders may be a whole disk


def picture_folders(root: Path, extensions: Iterable[str] | str | None = None) -> dict[str, int]:
    """Return the number of image files directly in each folder that has any, by posix path relative to the root.

    The root itself is ``.``; folders are in path order.
    """
    endings = normalised_extensions(extensions)
    counts = {}
    for folder, files in islice(walk_folder(root), MAX_FOLDERS):
        if count := sum(name.lower().endswith(endings) for name in files):
            counts[folder.relative_to(root).as_posix()] = count
    return dict(sorted(counts.items(), key=lambda item: (nfc(item[0]), item[0])))


def guess_options(folders: Iterable[str]) -> dict[str, Any] | None:
    """Return the options by name that folders with pictures would have, judged by their names.

    Folders of good names, and all in `train` but those of bad names, are good; folders of masks are masks; every other
    one but the root itself is a kind of defect. None where no folder is left to train on.

    >>> guess_options(["gut", "Kratzer", "masks/Kratzer"])
    {'normal_dir': ['gut'], 'abnormal_dir': ['Kratzer'], 'mask_dir': ['masks']}
    """
    options: dict[str, list[str]] = {}
    for folder in folders:
        if folder == ".":  # pictures beside the folders, such as an overview, are of no kind
            continue
        option, value = _option_of(PurePosixPath(folder))
        if value not in options.setdefault(option, []):
            options[option].append(value)
    if "normal_dir" not in options:
        return None
    if "abnormal_dir" not in options:
        options.pop("mask_dir", None)
    if len(options.get("mask_dir", [])) not in (1, len(options.get("abnormal_dir", []))):
        options.pop("mask_dir", None)
    order = ("normal_dir", "normal_test_dir", "abnormal_dir", "mask_dir", "normal_val_dir", "abnormal_val_dir")
    return {name: options[name] for name in (*order, "unknown_dir") if name in options}


def _option_of(folder: PurePosixPath) -> tuple[str, str]:
    """Return the option that a folder would be given by, and its value; masks by the folder that says so."""
    names = [plain(part) for part in folder.parts]
    for place, name in enumerate(names):
        if name in MASKS:
            return "mask_dir", PurePosixPath(*folder.parts[: place + 1]).as_posix()
    if names[-1] == UNKNOWN:
        return "unknown_dir", folder.as_posix()
    bad = any(name in BAD for name in names)
    good = not bad and (any(map(sounds_good, names)) or any(name in TRAIN for name in names))
    split = "_test" if any(name in TEST for name in names) else ""
    split = "_val" if any(name in VALIDATION for name in names) else split
    if good:
        return f"normal{split}_dir", folder.as_posix()
    return ("abnormal_val_dir" if split == "_val" else "abnormal_dir"), folder.as_posix()


def count_lines(counts: Mapping[str, int]) -> list[str]:
    """Return a line for each folder: its path and its number of images."""
    return [f"{folder} ({count} image{'' if count == 1 else 's'})" for folder, count in counts.items()]
