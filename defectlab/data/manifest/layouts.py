"""Folder layouts: the folders of good images, defects and masks, detected or given by name."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from defectlab.data.manifest.folder_names import BAD, GOOD, MASKS, UNKNOWN, VALIDATION, plain, sounds_good
from defectlab.data.manifest.options import DataOptions
from defectlab.data.manifest.picture_folders import count_lines, guess_options, picture_folders
from defectlab.data.manifest.proposals import proposed
from defectlab.utils.paths import resolve
from defectlab_runtime.errors import DataError, did_you_mean
from defectlab_runtime.image_files import is_user_folder, nfc

SPILLS = "proliv"
MAX_SHOWN = 10  # folders in a message
ANNOTATED, ANNOTATION = "test/imgs", "test/test_annotation.txt"

KNOWN = f"""Layouts known by themselves:
  mvtec     train/good, test/good, test/<defect>, ground_truth/<defect>; optionally val/good, val/<defect>, test/unknown
  good_bad  train/good, test/good, test/bad; optionally ground_truth
  wells     train, test/imgs with test/test_annotation.txt (lines "name label", 1 is anomalous), and proliv (or
            another of bad / defect / ...): anomalous images that validate
  flat      normal_dir, abnormal_dir, mask_dir (or synonyms of good, bad and masks)
  good_only images in the root itself and nowhere else: all of them are good
Synonyms: {" / ".join(GOOD)}; {" / ".join(BAD)}; {" / ".join(MASKS)}, in any case.
Any other folders can be given by name: normal_dir, abnormal_dir, normal_test_dir, mask_dir."""


@dataclass(frozen=True)
class Layout:
    """The folders of a dataset by role, as posix paths relative to the root, or absolute if outside the root.

    `mask_dirs` None: there are no masks at all. `annotated_dirs` hold test images of both labels, told apart by the
    text file in the same place of `annotations`. `unused` has folders that are not used, each with the reason.
    """

    name: str
    normal_dirs: tuple[str, ...]
    normal_test_dirs: tuple[str, ...] = ()
    abnormal_dirs: tuple[str, ...] = ()
    mask_dirs: tuple[str, ...] | None = None
    normal_val_dirs: tuple[str, ...] = ()
    abnormal_val_dirs: tuple[str, ...] = ()
    val_mask_dirs: tuple[str, ...] | None = None
    annotated_dirs: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    unknown_dirs: tuple[str, ...] = ()
    unused: tuple[tuple[str, str], ...] = ()

    def describe(self) -> str:
        """Return a description of the layout with one line for each role that has folders."""
        return "\n".join(f"{name}: {', '.join(dirs)}" for name, dirs in self.folders().items())

    def folders(self) -> dict[str, tuple[str, ...]]:
        """Return the folders of each role that has any, and the annotation files."""
        roles = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "unused")}
        return {name: dirs for name, dirs in roles.items() if dirs}

    @property
    def all_mask_dirs(self) -> tuple[str, ...]:
        """The folders of masks of test and validation images."""
        return (*(self.mask_dirs or ()), *(self.val_mask_dirs or ()))

    def as_options(self) -> dict[str, tuple[str, ...]]:
        """Return the options that give the same folders by name."""
        return {name.removesuffix("s"): dirs for name, dirs in self.folders().items() if name.endswith("_dirs")}


def detect(root: Path) -> Layout:
    """Detect the layout of the folders under `root` (see `KNOWN`).

    Raises:
        DataError: There is no such folder, it has no known layout, or a folder's name sounds good where kinds of defect
            are; says what was found, and which options would take it.
    """
    check_root(root)
    train, test = _child(root, ("train",)), _child(root, ("test",))
    if train is not None and _child(train, GOOD) is not None:
        layout = _train_test(root, train, test)
        _check_kinds(root, layout)
        return layout
    if train is not None and test is not None and (root / ANNOTATION).is_file() and (root / ANNOTATED).is_dir():
        return _wells(root, train, test)
    if (flat := _flat(root)) is not None:
        return flat
    pictures = picture_folders(root)
    if list(pictures) == ["."] and plain(root.name) not in (*BAD, *MASKS):
        return Layout("good_only", (".",))
    raise DataError(f"No known layout in {root}. {_found(pictures)}\n{KNOWN}{_guess(root, pictures)}{_nested(root)}")


def is_dataset(folder: Path) -> bool:
    """Return whether a folder has one of the layouts with folders of good training images."""
    names = {plain(child.name): child for child in subfolders(folder)}
    if "train" in names:
        inner = {plain(child.name) for child in subfolders(names["train"])}
        return bool(inner & set(GOOD)) or (folder / ANNOTATION).is_file()
    return bool(names.keys() & {"normal_dir", *GOOD})


def named(options: DataOptions) -> tuple[Path, Layout]:
    """Return the root (or the folders' common parent) and the layout of folders given by name."""
    base = None if options.root is None else resolve(options.root)
    parts = {f"{part}s": [_absolute(base, one) for one in dirs] for part, dirs in options.folders().items()}
    if base is None:
        base = Path(os.path.commonpath([path for paths in parts.values() for path in paths]))
    base = Path(os.path.normpath(base))
    check_root(base)
    dirs: dict[str, Any] = {part: tuple(relative_to_root(base, p) for p in paths) for part, paths in parts.items()}
    return base, Layout(name="named", **dirs)


def relative_to_root(root: Path, path: Path) -> str:
    """Return `path` as a posix string relative to `root`, absolute where it lies outside."""
    path = Path(os.path.normpath(path))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def check_root(root: Path) -> None:
    """Check that the root is a folder; the error for a missing folder names the closest sibling folder."""
    if root.is_dir():
        return
    if root.exists():
        raise DataError(f"{root} is a file; root must be the folder that holds the images.")
    siblings = subfolders(root.parent) if root.parent.is_dir() else []
    hint = did_you_mean(root.name, [s.name for s in siblings])
    get = " `defectlab data sample` makes one to try, `defectlab data download` gets public ones."
    raise DataError(f"There is no folder {root}.{hint or get}")


def closest_folder(root: Path, folder: str, depth: int = 3) -> str:
    """Return `` Did you mean 'x'?`` for the closest folder under `root`, at most `depth` levels down.

    A folder whose path differs in case only is said to do so.
    """
    names, level = [], [root]
    for _ in range(depth):
        level = [child for parent in level for child in subfolders(parent)]
        names += [child.relative_to(root).as_posix() for child in level]
    same = [name for name in names if nfc(name).casefold() == nfc(folder).casefold()]
    return f" {same[0]!r} differs in upper and lower case." if same else did_you_mean(folder, names)


def _train_test(root: Path, train: Path, test: Path | None) -> Layout:
    """Return the MVTec layout, or good_bad, its special case with one kind of defect named bad."""
    good = _child(train, GOOD)
    assert good is not None
    val = _child(root, VALIDATION)
    test_good, test_kinds, unknown = _good_and_kinds(test)
    val_good, val_kinds, val_unknown = _good_and_kinds(val)
    mask_root = _child(root, MASKS) or (_child(test, MASKS) if test is not None else None)
    only_bad = len(test_kinds) == 1 and plain(test_kinds[0].name) in BAD
    return Layout(
        name="good_bad" if only_bad else "mvtec",
        normal_dirs=(_posix(root, good),),
        normal_test_dirs=tuple(_posix(root, p) for p in test_good),
        abnormal_dirs=tuple(_posix(root, p) for p in test_kinds),
        mask_dirs=_mask_dirs(root, mask_root, test_kinds),
        normal_val_dirs=tuple(_posix(root, p) for p in val_good),
        abnormal_val_dirs=tuple(_posix(root, p) for p in val_kinds),
        val_mask_dirs=_mask_dirs(root, mask_root, val_kinds),
        unknown_dirs=tuple(_posix(root, p) for p in unknown),
        unused=tuple((_posix(root, child), "its images have no label to validate by") for child in val_unknown),
    )


def _wells(root: Path, train: Path, test: Path) -> Layout:
    """Return the wells layout: good images in train/, spilled validation images, and annotated test images."""
    others = [child for child in subfolders(root) if child not in (train, test)]
    spills = [child for child in others if plain(child.name) in (SPILLS, *BAD)]
    return Layout(
        name="wells",
        normal_dirs=(_posix(root, train),),
        abnormal_val_dirs=tuple(_posix(root, child) for child in spills),
        annotated_dirs=(ANNOTATED,),
        annotations=(ANNOTATION,),
    )


def _good_and_kinds(folder: Path | None) -> tuple[list[Path], list[Path], list[Path]]:
    """Split test/ or val/ into the folders of good images, of each kind of defect, and of images without a label."""
    if folder is None:
        return [], [], []
    good = _child(folder, GOOD)
    kinds, unknown = [], []
    for child in subfolders(folder):
        if plain(child.name) == UNKNOWN:
            unknown.append(child)
        elif child != good and plain(child.name) not in MASKS:
            kinds.append(child)
    return ([good] if good else []), kinds, unknown


def _check_kinds(root: Path, layout: Layout) -> None:
    """Check that no kind of defect has a name that says good, in some language or spelling."""
    kinds = (*layout.abnormal_dirs, *layout.abnormal_val_dirs)
    good = [folder for folder in kinds if sounds_good(Path(folder).name)]
    if not good:
        return
    guess = guess_options([folder for dirs in layout.as_options().values() for folder in dirs])
    raise DataError(
        f"{root}: {', '.join(map(repr, good))} would be a kind of defect, but the name sounds like good images, which "
        "would spoil every figure. Say which it is, with folders given by name.\n"
        + "\n".join(
            ["Good images:", *_indented(root, guess), "A kind of defect:", *_indented(root, layout.as_options())]
        )
    )


def _mask_dirs(root: Path, mask_root: Path | None, kinds: Sequence[Path]) -> tuple[str, ...] | None:
    if mask_root is None or not kinds:
        return None
    present = {nfc(child.name): child for child in subfolders(mask_root)}
    if any(nfc(kind.name) in present for kind in kinds):  # a kind without its folder is then reported as missing
        return tuple(_posix(root, present.get(nfc(kind.name), mask_root / kind.name)) for kind in kinds)
    return (_posix(root, mask_root),)


def _flat(root: Path) -> Layout | None:
    good = _child(root, ("normal_dir", *GOOD))
    if good is None:
        return None
    bad = _child(root, ("abnormal_dir", *BAD))
    test = _child(root, ("normal_test_dir", "normal_test", "good_test"))
    masks = _child(root, ("mask_dir", *MASKS)) if bad else None
    return Layout(
        name="flat",
        normal_dirs=(_posix(root, good),),
        normal_test_dirs=(_posix(root, test),) if test else (),
        abnormal_dirs=(_posix(root, bad),) if bad else (),
        mask_dirs=(_posix(root, masks),) if masks else None,
    )


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the subfolder with one of these names in any case; None if there is none.

    Raises:
        DataError: Two subfolders fit.
    """
    fitting = [child for child in subfolders(folder) if plain(child.name) in names]
    if len(fitting) > 1:
        both = " and ".join(child.name for child in fitting)
        raise DataError(
            f"{folder} has {both}, which mean the same: give the folders by name (normal_dir=..., ...)."
            + _guess(folder, picture_folders(folder))
        )
    return fitting[0] if fitting else None


def subfolders(folder: Path) -> list[Path]:
    """Return a folder's visible subfolders, sorted by NFC name; an empty list if the folder cannot be read."""
    try:
        children = [child for child in folder.iterdir() if child.is_dir() and is_user_folder(child.name)]
    except OSError:
        return []
    return sorted(children, key=lambda child: (nfc(child.name), child.name))


def _found(pictures: Mapping[str, int]) -> str:
    lines = count_lines(pictures)
    more = f" and {len(lines) - MAX_SHOWN} more folders" if len(lines) > MAX_SHOWN else ""
    return f"Found: {', '.join(lines[:MAX_SHOWN])}{more}." if lines else "Found: no images."


def _guess(root: Path, pictures: Mapping[str, int]) -> str:
    """Return the options that the names of the folders suggest, as text to append; empty where they suggest none."""
    guess = guess_options(pictures)
    return "" if guess is None else "\n" + "\n".join(["The names of these folders suggest:", *_indented(root, guess)])


def _indented(root: Path, folders: Mapping[str, Any] | None) -> list[str]:
    return [f"  {line}" for line in proposed({"root": str(root), **(folders or {})})]


def _nested(root: Path) -> str:
    for child in subfolders(root):
        train = _child(child, ("train",))
        if train is not None and any(plain(folder.name) in GOOD for folder in subfolders(train)):
            return f"\n{child} has a known layout: did you mean root={str(child)!r}?"
    return ""


def _absolute(root: Path | None, path: str) -> Path:
    expanded = Path(path).expanduser()
    return Path(os.path.normpath(resolve(expanded) if root is None else root / expanded))


def _posix(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
