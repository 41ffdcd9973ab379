"""Archives of public datasets, unpacked into the layout of MVTec AD: train/good, test/<kind>, ground_truth/<kind>."""

import csv
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from defectlab.data.images import read_mask
from defectlab.utils.errors import DataError, unknown_name

VISA_SPLIT = "split_csv/1cls.csv"
VISA_COLUMNS = ("object", "split", "label", "image", "mask")


def unpack(archive: Path, layout: str, scratch: Path, categories: Sequence[str]) -> list[Path]:
    """Unpack the requested categories (all if none are named) into `scratch` and return their folders.

    Raises:
        DataError: A category that the archive does not have, or an archive of another form.
    """
    return _visa(archive, scratch, categories) if layout == "visa" else _mvtec(archive, scratch, categories)


def move_folders(folders: Iterable[Path], destination: Path) -> list[Path]:
    """Move each folder atomically into `destination` and return the new paths."""
    return [folder.rename(destination / folder.name) for folder in folders]


def _mvtec(archive: Path, scratch: Path, categories: Sequence[str]) -> list[Path]:
    """Unpack the categories, which hold train/, at the top or one folder down, without licences and readmes."""
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        where: dict[str, PurePosixPath] = {}
        for member in members:
            parts = PurePosixPath(member.name).parts
            if "train" in parts[1:3]:
                place = parts.index("train", 1)
                where[parts[place - 1]] = PurePosixPath(*parts[:place])
        wanted = _wanted(categories, sorted(where), archive)
        for name in wanted:
            own = [member for member in members if PurePosixPath(member.name).is_relative_to(where[name])]
            tar.extractall(scratch / "raw", own, filter="data")
    return [scratch / "raw" / where[name] for name in wanted]


def _visa(archive: Path, scratch: Path, categories: Sequence[str]) -> list[Path]:
    """Unpack VisA's images by its one-class split into good (normal) and bad (anomalous), with masks of 0 and 255."""
    raw = scratch / "raw"
    with tarfile.open(archive) as tar:
        tar.extractall(raw, _files(tar, VISA_SPLIT), filter="data")
        table = next((file for file in raw.rglob("1cls.csv")), None)
        if table is None:
            raise DataError(f"{archive} is no archive of VisA: it has no {VISA_SPLIT}.")
        rows = _split_rows(table)
        wanted = _wanted(categories, sorted(rows), archive)
        base = table.parent.parent
        names = {row[column] for name in wanted for row in rows[name] for column in ("image", "mask") if row[column]}
        prefix = base.relative_to(raw).as_posix()
        paths = {name if prefix == "." else f"{prefix}/{name}" for name in names}
        tar.extractall(raw, [member for member in tar.getmembers() if _plain(member.name) in paths], filter="data")
    return [_sorted_category(base, scratch / name, rows[name]) for name in wanted]


def _split_rows(table: Path) -> dict[str, list[dict[str, str]]]:
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != VISA_COLUMNS:
            raise DataError(f"{VISA_SPLIT} has columns {reader.fieldnames}, not {list(VISA_COLUMNS)}.")
        for row in reader:
            known = row["split"] in ("train", "test") and row["label"] in ("normal", "anomaly")
            inside = all(not Path(row[c]).is_absolute() and ".." not in Path(row[c]).parts for c in ("image", "mask"))
            if not known or not inside or not row["image"] or Path(row["object"]).name != row["object"]:
                raise DataError(f"{VISA_SPLIT} line {reader.line_num}: {row} is not understood.")
            rows[row["object"]].append(row)
    return rows


def _sorted_category(base: Path, category: Path, rows: Sequence[dict[str, str]]) -> Path:
    for row in rows:
        kind = "good" if row["label"] == "normal" else "bad"
        source = base / row["image"]
        if not source.is_file():
            raise DataError(f"The archive lacks {row['image']}, which {VISA_SPLIT} names.")
        target = category / row["split"] / kind / source.name
        if target.exists():
            raise DataError(f"{VISA_SPLIT} names two images {target.relative_to(category.parent)}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
        if kind == "bad" and row["split"] == "test":
            if not row["mask"]:
                raise DataError(f"{VISA_SPLIT} names no mask of {row['image']}.")
            mask = category / "ground_truth/bad" / f"{target.stem}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(read_mask(base / row["mask"]).astype(np.uint8) * 255).save(mask)
    return category


def _files(tar: tarfile.TarFile, end: str) -> list[tarfile.TarInfo]:
    return [member for member in tar.getmembers() if member.isfile() and _plain(member.name).endswith(end)]


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _wanted(categories: Sequence[str], there: Sequence[str], archive: Path) -> list[str]:
    if not there:
        raise DataError(f"{archive} holds no category: no folder train/good in it.")
    for name in categories:
        if name not in there:
            raise DataError(unknown_name("category", name, there))
    return list(dict.fromkeys(categories)) or list(there)
