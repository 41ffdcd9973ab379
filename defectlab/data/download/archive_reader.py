"""Archives of anyone (zip, tar, tar.gz, tar.bz2, tar.xz): checked as a whole, then unpacked in part.

A tar's headers are walked here and not by `tarfile`, which reads a header of any claimed size into memory, follows
negative sizes in a circle, and takes an archive that is cut between two files for a whole one.
"""

import bz2
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from defectlab.data.download.archive_names import RefusedError, UniqueNames, clean_name, shown
from defectlab.utils.disk import disk_errors
from defectlab.utils.errors import DataError, InputError

MAX_MEMBERS = 500_000  # MVTec AD has 6,600, VisA 22,000
MEMBER_BYTES = 64  # packed, at least, on average: an image takes more with its name alone
MEMBERS_FROM = 100_000  # from which that counts
MAX_BYTES = 1 << 40  # unpacked; the largest public sets of images have some 100 GB
MAX_RATIO = 200  # of unpacked to packed bytes: images about 1, black masks alone up to 100
RATIO_FROM = 128 << 20  # unpacked bytes from which the ratio counts
MAX_HEADER_BYTES = 1 << 20  # of a tar's extra header (long names, attributes): some hundred bytes
MAX_HEADERS_BYTES = 256 << 20  # of all of them
MAX_PADDING_BYTES = 16 << 20  # of zeros behind a tar's end: tar writes 10 KB
MAX_DIRECTORY_BYTES = 64 << 20  # of a zip's list of members: a hundred bytes for each

OTHERWISE = (
    "Nothing was unpacked. Get the archive from its publisher again, or unpack it yourself and give the folder as "
    "--data.root."
)
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
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
            compression, or unpacks to more than the limits above.
    """
    sizes: dict[str, int] = {}
    unique = UniqueNames()
    total = members = 0
    with _explained(path):
        packed = path.stat().st_size
        for name, size, _ in _entries(path):
            members += 1
            if members > MAX_MEMBERS:
                raise RefusedError(f"it holds more than {MAX_MEMBERS:,} files and folders")
            if members > max(MEMBERS_FROM, packed // MEMBER_BYTES):
                raise RefusedError(f"its files take less than {MEMBER_BYTES} packed bytes each, as no images do")
            if size is not None:
                if not name:
                    raise RefusedError("it holds a file without a name")
                sizes[name] = size
                total += size + _BLOCK
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
        for name, size, content in _entries(archive.path):
            if name not in wanted:
                continue
            target = folder / name
            with disk_errors(folder, needed):
                target.parent.mkdir(parents=True, exist_ok=True)
                with content() as source, target.open("xb") as file:
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
        raise DataError(f"{path} cannot be unpacked: {error}. {OTHERWISE}") from error
    except InputError:
        raise
    except _ERRORS as error:
        raise DataError(f"{path} cannot be unpacked: {type(error).__name__}: {error}. {OTHERWISE}") from error


_Entry = tuple[str, int | None, Callable[[], Any]]  # clean name, bytes (None: a folder), what opens the content


def _entries(path: Path) -> Iterator[_Entry]:
    with path.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            yield from _zip_entries(file)
            return
        opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
        if opener is None:
            yield from _tar_entries(file, lambda count: file.seek(count, 1))
            return
        with opener(file) as plain:
            yield from _tar_entries(plain, lambda count: _read_over(plain, count))


def _zip_entries(file: IO[bytes]) -> Iterator[_Entry]:
    _check_directory(file)
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = clean_name(info.orig_filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise RefusedError(f"{shown(name)} is a link or a device")
            if info.flag_bits & 1:
                raise RefusedError(f"{shown(name)} is encrypted")
            if info.compress_type not in _METHODS:
                raise RefusedError(
                    f"{shown(name)} is compressed by a method (number {info.compress_type}) that is unknown"
                )
            if info.is_dir():
                yield name, None, _no_content
            else:
                yield name, info.file_size, partial(archive.open, info)


def _check_directory(file: IO[bytes]) -> None:
    """Refuse a zip whose list of members, which `zipfile` reads at once, is too large."""
    end = file.seek(0, 2)
    file.seek(max(0, end - (1 << 16) - 100))
    tail = file.read()
    place, place64 = tail.rfind(b"PK\x05\x06"), tail.rfind(b"PK\x06\x06")
    size = int.from_bytes(tail[place + 12 : place + 16], "little") if place >= 0 else 0
    if place64 >= 0 and size == 0xFFFFFFFF:
        size = int.from_bytes(tail[place64 + 40 : place64 + 48], "little")
    if size > MAX_DIRECTORY_BYTES:
        raise RefusedError(f"its list of members has {size:,} bytes, more than {MAX_DIRECTORY_BYTES:,}")
    file.seek(0)


def _tar_entries(file: Any, skip: Callable[[int], object]) -> Iterator[_Entry]:
    """Walk a tar's headers; `skip` passes over bytes."""
    long_name, extra = None, dict[str, bytes]()
    left = MAX_HEADERS_BYTES
    for _ in range(MAX_MEMBERS * 3):  # a member has at most a long name, attributes and its own header
        block = file.read(_BLOCK)
        if not block:
            raise RefusedError("it is cut: its end is missing")
        if not block.strip(b"\0"):
            _check_padding(file)
            return
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            header = _read_header(file, info)
            left -= info.size
            if left < 0:
                raise RefusedError(f"its headers have more than {MAX_HEADERS_BYTES >> 20} MB")
            if info.type == tarfile.GNUTYPE_LONGNAME:
                long_name = header.partition(b"\0")[0]
            elif info.type == tarfile.XHDTYPE:
                extra = _attributes(header)
            elif info.type == tarfile.XGLTYPE and {"path", "size"} & set(_attributes(header)):
                raise RefusedError("it gives one name or size to all members")
            continue
        raw = extra.get("path", long_name)
        name = clean_name(info.name if raw is None else raw.decode("utf-8", "surrogateescape"))
        if info.isdir():
            yield name, None, _no_content
        elif info.type not in _FILES or any(key.startswith("GNU.sparse") for key in extra):
            raise RefusedError(f"{shown(name)} is a link, a device or a file with holes")
        else:
            size = int(extra.get("size", b"%d" % info.size))
            if not 0 <= size <= MAX_BYTES:
                raise RefusedError(f"{shown(name)} claims {size:,} bytes")
            content = _Content(file, size)
            yield name, size, partial(_itself, content)
            skip(content.left + -size % _BLOCK)
        long_name, extra = None, {}
    raise RefusedError(f"it holds more than {MAX_MEMBERS * 3:,} headers")


class _Content:
    """The content of one file in a tar, read from the stream of the whole."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self.left = file, size

    def __enter__(self) -> "_Content":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, count: int) -> bytes:
        found: bytes = self._file.read(min(count, self.left))
        self.left -= len(found)
        return found


def _itself(content: _Content) -> _Content:
    return content


def _no_content() -> Any:
    raise IsADirectoryError("a folder has no content")


def _read_header(file: Any, info: tarfile.TarInfo) -> bytes:
    if not 0 <= info.size <= MAX_HEADER_BYTES:
        raise RefusedError(f"a header claims {info.size:,} bytes, more than {MAX_HEADER_BYTES:,}")
    content: bytes = file.read(info.size + -info.size % _BLOCK)
    if len(content) < info.size:
        raise RefusedError("it is cut in a header")
    return content[: info.size]


def _attributes(header: bytes) -> dict[str, bytes]:
    """Return the attributes of a pax header, which is a sequence of `LENGTH KEY=VALUE` lines."""
    found: dict[str, bytes] = {}
    start = 0
    while start < len(header) and header[start]:
        blank = header.find(b" ", start, start + 9)
        length = int(header[start:blank]) if blank > start and header[start:blank].isdigit() else 0
        end = start + length
        key, equals, value = header[blank + 1 : end - 1].partition(b"=")
        if end > len(header) or end <= blank + 1 or header[end - 1 : end] != b"\n" or not equals:
            raise RefusedError("a header of attributes is damaged")
        found[key.decode("utf-8", "replace")] = value
        start = end
    return found


def _check_padding(file: Any) -> None:
    """Read to the end, which also compares a compressed file's checksum: only zeros may be left."""
    left = MAX_PADDING_BYTES
    while chunk := file.read(_CHUNK):
        left -= len(chunk)
        if left < 0 or chunk.strip(b"\0"):
            raise RefusedError("something follows its end")


def _read_over(file: Any, count: int) -> None:
    while count > 0:
        chunk = file.read(min(count, _CHUNK))
        if not chunk:
            raise RefusedError("it is cut")
        count -= len(chunk)
