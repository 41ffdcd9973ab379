"""Selection of datasets (categories) in one folder by name, list, group or all. Does not use torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from defectlab.data.manifest.layouts import is_dataset, subfolders
from defectlab_runtime.errors import DataError, unknown_name

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    *("bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper"),
)  # MVTec AD's own groups
Groups = Mapping[str, Sequence[str]]


def categories_in(root: Path) -> list[str]:
    """Return the sorted names of the datasets in a folder, which are its subfolders with good training images.

    These are train/good, or good beside folders of defects, or another name of good (`folder_names.GOOD`).

    Raises:
        DataError: There is none.
    """
    there = sorted(folder.name for folder in subfolders(root) if is_dataset(folder))
    if not there:
        raise DataError(f"{root} holds no datasets: no folder below it has train/good or good (or ok, normal, ...).")
    return there


def named_groups(groups: Groups) -> dict[str, list[str]]:
    """Return all named groups of categories: MVTec AD's textures and objects, and the user's groups."""
    own = {name: list(members) for name, members in groups.items()}
    return {"textures": list(TEXTURES), "objects": list(OBJECTS), **own}


def chosen_categories(asked: str | Sequence[str], there: Sequence[str], groups: Groups) -> list[str]:
    """Return the categories selected by `all`, a group, a name or a list of these (or `a,b`), each once.

    Raises:
        DataError: One is not there; the closest that is, is named.
    """
    known = named_groups(groups)
    parts = [part.strip() for part in asked.split(",")] if isinstance(asked, str) else asked
    names = [name for part in parts for name in (there if part == "all" else known.get(part, [part]))]
    missing = [name for name in dict.fromkeys(names) if name not in there]
    if missing:
        raise DataError("\n".join(unknown_name("category", name, there) for name in missing))
    return list(dict.fromkeys(names))
