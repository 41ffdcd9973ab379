"""An account of every folder with pictures below the root: used by the layout, or named as not used. No torch here."""

from collections.abc import Mapping
from pathlib import Path

from defectlab.data.manifest.findings import MAX_LINES, Findings
from defectlab.data.manifest.folder_names import MASKS, plain
from defectlab.data.manifest.layouts import Layout, subfolders
from defectlab.data.manifest.options import DataOptions
from defectlab.data.manifest.picture_folders import count_lines, guess_options, picture_folders
from defectlab.data.manifest.proposals import proposed
from defectlab_runtime.image_files import IMAGE_EXTENSIONS, other_pictures

FIX_LINES = 3


def account(root: Path, layout: Layout, options: DataOptions, findings: Findings) -> None:
    """Report the folders with pictures below the root that the layout does not use, and good images that are missing.

    For a detected layout this is a warning with the options that would use them. Where folders are given by name the
    others were left out on purpose: a note names them, if the root was given too.
    """
    _warn_of_other_pictures(root, layout, findings)
    if layout.name == "named" and options.root is None:
        return
    pictures = picture_folders(root, options.extensions)
    if layout.name == "good_only":
        findings.choose(
            f"All {pictures.get('.', 0)} images are taken for good ones to train on, because the root holds images and "
            "no folders of images."
        )
        findings.warn(
            "Masks beside this folder: images that have a mask are defects, taken for good ones here. Move these to a "
            f"folder of their own, then give root={root.parent}, normal_dir={root.name}, abnormal_dir (that folder), "
            "mask_dir",
            [str(folder) for folder in subfolders(root.parent) if folder.name.lower() in MASKS],
        )
    unused = {folder: count for folder, count in pictures.items() if not _is_used(root, folder, layout, options.task)}
    if layout.name == "named":
        if unused:
            findings.choose(f"Folders with pictures that no option names: {', '.join(count_lines(unused))}.")
        return
    findings.warn("Folders with pictures that are not used", _unused_lines(root, layout, pictures, unused))
    if layout.name in ("mvtec", "good_bad") and layout.abnormal_dirs and not layout.normal_test_dirs:
        findings.warn(
            "test/ has no folder of good images (good, normal, ok, ...)",
            [f"some of {', '.join(layout.normal_dirs)} are kept from training for the test (test_split_ratio)"],
        )


def _warn_of_other_pictures(root: Path, layout: Layout, findings: Findings) -> None:
    """Warn of picture files of a kind that is not read, below the root or in the folders given by name."""
    given = [folder for name, dirs in layout.folders().items() if name != "annotations" for folder in dirs]
    folders = dict.fromkeys(given) if layout.name == "named" else {".": None}
    lines = [f"{folder}: {line}" for folder in folders for line in other_pictures(Path(root, folder))]
    findings.warn(f"Pictures of a kind that is not read ({', '.join(IMAGE_EXTENSIONS)} are): convert them", lines)


def _is_used(root: Path, folder: str, layout: Layout, task: str | None) -> bool:
    """Return whether the layout uses a folder; one of masks also where it is read for good images, or not wanted."""
    path = Path(root, folder)
    used = [Path(root, given) for name, dirs in layout.folders().items() if name != "annotations" for given in dirs]
    if any(plain(part) in MASKS for part in Path(folder).parts):
        if task == "classification":
            return True
        good = {Path(name).name for name in (*layout.normal_dirs, *layout.normal_test_dirs, *layout.normal_val_dirs)}
        used += [Path(root, masks).parent / name for masks in layout.all_mask_dirs for name in good]  # masks_of_good
    return any(path.is_relative_to(one) for one in used)


def _unused_lines(root: Path, layout: Layout, pictures: Mapping[str, int], unused: Mapping[str, int]) -> list[str]:
    reasons = dict(layout.unused)
    lines = [
        line + (f": {reasons[folder]}" if folder in reasons else "")
        for folder, line in zip(unused, count_lines(unused), strict=True)
    ]
    open_folders = [folder for folder in unused if folder not in reasons]
    guess = guess_options([folder for folder in pictures if folder not in reasons])
    if (
        not open_folders
        or guess is None
        or not any(folder in dirs for dirs in guess.values() for folder in open_folders)
    ):
        return lines
    shown = lines[: MAX_LINES - FIX_LINES - 1]
    more = [f"... and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else []
    return [*shown, *more, "to use them:", *proposed({"root": str(root), **guess})]
