"""Archives of public datasets, unpacked into the layout of MVTec AD: train/good, test/<kind>, ground_truth/<kind>."""

import csv
import io
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from defectlab.data.download.archive_members import RefusedError, clean_name, shown
from defectlab.data.download.archive_reader import Archive, extract, read_archive
from defectlab.data.download.public_datasets import OWN_TABLE
from defectlab.data.mask_files import read_mask
from defectlab_runtime import names
from defectlab_runtime.errors import DataError, unknown_name

VISA_SPLIT = "split_csv/1cls.csv"
VISA_COLUMNS = ("object", "split", "label", "image", "mask")
MAX_SPLIT_BYTES = 64 << 20  # VisA's own has 1 MB


def unpack(path: Path, layout: str, scratch: Path, categories: Sequence[str]) -> list[Path]:
    """Unpack the requested categories (all if none are named) into `scratch` and return their folders.

    Raises:
        DataError: A category that the archive does not have, an archive of another form, or one that `read_archive`
            refuses.
    """
    archive = read_archive(path)
    return (_visa if layout == "visa" else _mvtec)(archive, scratch, categories)


def move_folders(folders: Iterable[Path], destination: Path) -> list[Path]:
    """Move each folder atomically into `destination`, all or none of them, and return the new paths.

    Raises:
        OSError: Something of that name is there.
    """
    moved: dict[Path, Path] = {}  # from -> to
    try:
        for folder in folders:
            moved[folder] = folder.rename(destination / folder.name)
    except BaseException:
        for folder, target in moved.items():
            target.rename(folder)
        raise
    return list(moved.values())


def _mvtec(archive: Archive, scratch: Path, categories: Sequence[str]) -> list[Path]:
    """Unpack the categories, which hold train/, at the top or one folder down, without licences and readmes."""
    where: dict[str, str] = {}
    for name in archive.sizes:
        parts = name.split("/")
        if "train" in parts[1:3]:
            place = parts.index("train", 1)
            folder = "/".join(parts[:place])
            if where.setdefault(parts[place - 1], folder) != folder:
                raise DataError(f"{archive.path} holds two folders {shown(parts[place - 1])} with train/ in them.")
    wanted = _wanted(categories, sorted(where), archive.path)
    folders = tuple(f"{where[name]}/" for name in wanted)
    extract(archive, [name for name in archive.sizes if name.startswith(folders)], scratch / "raw")
    return [scratch / "raw" / where[name] for name in wanted]


def _visa(archive: Archive, scratch: Path, categories: Sequence[str]) -> list[Path]:
    """Unpack VisA's images by its one-class split into good (normal) and bad (anomalous), with masks of 0 and 255."""
    tables = [name for name in archive.sizes if f"/{name}".endswith(f"/{VISA_SPLIT}")]
    if len(tables) != 1:
        raise DataError(f"{archive.path} is no archive of VisA: it has {len(tables) or 'no'} {VISA_SPLIT}.")
    if archive.sizes[tables[0]] > MAX_SPLIT_BYTES:
        raise DataError(f"{VISA_SPLIT} in {archive.path} has more than {MAX_SPLIT_BYTES >> 20} MB.")
    raw = scratch / "raw"
    extract(archive, tables, raw)
    rows = _split_rows(raw / tables[0])
    wanted = _wanted(categories, sorted(rows), archive.path)
    prefix = tables[0].removesuffix(VISA_SPLIT)
    asked = {prefix + row[column] for name in wanted for row in rows[name] for column in ("image", "mask")}
    extract(archive, asked & (archive.sizes.keys() - tables), raw)
    return [_sorted_category(raw / prefix, scratch / "sorted" / name, rows[name]) for name in wanted]


def _split_rows(table: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of VisA's split by category, their paths clean."""
    try:
        reader = csv.reader(io.StringIO(table.read_text(encoding="utf-8-sig"), newline=""))
    except UnicodeDecodeError as error:
        raise DataError(f"{VISA_SPLIT} is no text in UTF-8 ({error}).") from error
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    try:
        header = tuple(next(reader, ()))
        if header != VISA_COLUMNS:
            raise RefusedError(f"it has columns {shown(', '.join(header))}, not {', '.join(VISA_COLUMNS)}")
        for cells in filter(None, reader):
            row = dict(zip(VISA_COLUMNS, cells, strict=True))
            row["image"] = clean_name(row["image"])
            row["mask"] = clean_name(row["mask"]) if row["mask"] else ""
            if row["split"] not in ("train", "test") or row["label"] not in ("normal", "anomaly"):
                raise RefusedError("a split is train or test, a label normal or anomaly")
            rows[row["object"]].append(row)
    except (ValueError, csv.Error, RefusedError) as error:
        raise DataError(f"{VISA_SPLIT} line {reader.line_num} is not understood: {error}.") from error
    return rows


def _sorted_category(base: Path, category: Path, rows: Sequence[dict[str, str]]) -> Path:
    taken: set[str] = set()
    for row in rows:
        kind = "good" if row["label"] == "normal" else "bad"
        source = base / row["image"]
        if not source.is_file():
            raise DataError(f"The archive lacks {shown(row['image'])}, which {VISA_SPLIT} names (or names it twice).")
        target = category / row["split"] / kind / source.name
        mask = category / "ground_truth/bad" / f"{target.stem}.png"
        has_mask = kind == "bad" and row["split"] == "test"
        for made in (target, mask)[: 1 + has_mask]:
            key = names.alike(made.relative_to(category).as_posix())
            if key in taken:
                raise DataError(f"{VISA_SPLIT} names two images for {shown(str(made.relative_to(category.parent)))}.")
            taken.add(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
        if has_mask:
            if not row["mask"]:
                raise DataError(f"{VISA_SPLIT} names no mask of {shown(row['image'])}.")
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(read_mask(base / row["mask"]).astype(np.uint8) * 255).save(mask)
    return category


def _wanted(categories: Sequence[str], there: Sequence[str], archive: Path) -> list[str]:
    if not there:
        raise DataError(f"{archive} holds no category: no folder train/good in it.")
    for name in categories:
        if name not in there:
            raise DataError(unknown_name("category", name, there))
    wanted = list(dict.fromkeys(categories)) or list(there)
    known = dict[str, str]()
    for name in wanted:
        if name.startswith(".") or names.path(name) != name or name == OWN_TABLE:
            raise DataError(f"{archive} holds a category {shown(name)}, which is no name for a folder of data.")
        if known.setdefault(names.alike(name), name) != name:
            other = known[names.alike(name)]
            raise DataError(f"{archive} holds {shown(other)} and {shown(name)}, which are one name on some systems.")
    return wanted
