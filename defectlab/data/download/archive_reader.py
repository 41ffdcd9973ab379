"""Archives from untrusted sources (zip, tar, tar.gz, tar.bz2, tar.xz): checked as a whole, then unpacked in part."""

import bz2
import gzip
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defectlab.data.download.archive_members import Member, RefusedError, UniqueNames, shown
from defectlab.data.download.tar_members import BLOCK, tar_members
from defectlab.data.download.zip_members import zip_members
from defectlab.utils.disk import disk_errors
from defectlab_runtime.errors import DataError, InputError

MAX_MEMBERS = 500_000  # MVTec AD has 6,600, VisA 22,000
MEMBER_BYTES = 64  # packed, at least, on average: an image takes more with its name alone
MEMBERS_FROM = 100_000  # from which that counts
MAX_BYTES = 1 << 40  # unpacked; the largest public sets of images have some 100 GB
MAX_RATIO = 200  # of unpacked to packed bytes: images about 1, black masks alone up to 100
RATIO_FROM = 128 << 20  # unpacked bytes from which the ratio counts

_NEXT_STEP = (
    "Nothing was unpacked. Get the archive from its publisher again, or unpack it yourself and give the folder as "
    "--data.root."
)
_CHUNK = 1 << 20
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_ERRORS = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, struct.error, ValueError, LookupError,
    RuntimeError, OverflowError, MemoryError, OSError,
)  # fmt: skip  # UnicodeError is a ValueError, NotImplementedError and RecursionError are RuntimeErrors


@dataclass(frozen=True)
class Archive:
    """An archive whose names and sizes are all sound: the file, and the bytes of each of its files by clean name."""

    path: Path
    sizes: dict[str, int]


def read_archive(path: Path) -> Archive:
    """Read the names and sizes in an archive, and check all of them.

    Raises:
        DataError: It is damaged or cut, holds a name that is refused, a link, a device, an encrypted file or an unknown
            compression, or unpacks to more than the limits of this module.
    """
    sizes: dict[str, int] = {}
    unique = UniqueNames()
    total = members = 0
    with _explained(path):
        packed = path.stat().st_size
        for name, size, _ in _members(path):
            members += 1
            if members > MAX_MEMBERS:
                raise RefusedError(f"it holds more than {MAX_MEMBERS:,} files and folders")
            if members > max(MEMBERS_FROM, packed // MEMBER_BYTES):
                raise RefusedError(f"its files take less than {MEMBER_BYTES} packed bytes each, as no images do")
            if size is not None:
                if not name:
                    raise RefusedError("it holds a file without a name")
                sizes[name] = size
                total += size + BLOCK
            unique.add(name, is_folder=size is None)
            if total > MAX_BYTES:
                raise RefusedError(f"it unpacks to more than {MAX_BYTES >> 30:,} GB")
            if total > max(RATIO_FROM, packed * MAX_RATIO):
                raise RefusedError(f"it unpacks to more than {MAX_RATIO} times its size, as no images do")
    return Archive(path, sizes)


def extract(archive: Archive, names: Collection[str], folder: Path) -> None:
    """Unpack the named files of an archive into a folder that holds none of them.

    Raises:
        DataError: Their content is damaged, or the disk has too little room.
    """
    wanted = set(names)
    if not wanted:
        return
    needed = sum(archive.sizes[name] for name in wanted)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{archive.path} takes {needed / 1e9:.1f} GB unpacked, and {free / 1e9:.1f} GB are free. "
            "Free space, name fewer categories (--category), or a folder on another disk (--destination)."
        )
    with _explained(archive.path):
        for name, size, open_content in _members(archive.path):
            if name not in wanted:
                continue
            target = folder / name
            with disk_errors(folder, needed):
                target.parent.mkdir(parents=True, exist_ok=True)
                with open_content() as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
            if target.stat().st_size != size:
                raise RefusedError(f"{shown(name)} ends early")
            wanted.remove(name)
            if not wanted:
                return
        raise RefusedError("it was changed meanwhile")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what a library, or this module, finds wrong in an archive into a DataError that names the file."""
    try:
        yield
    except RefusedError as error:
        raise DataError(f"{path} cannot be unpacked: {error}. {_NEXT_STEP}") from error
    except InputError:
        raise
    except _ERRORS as error:
        raise DataError(f"{path} cannot be unpacked: {type(error).__name__}: {error}. {_NEXT_STEP}") from error


def _members(path: Path) -> Iterator[Member]:
    with path.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            yield from zip_members(file)
            return
        decompress = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), nullcontext)
        with decompress(file) as tar:
            yield from tar_members(tar)
