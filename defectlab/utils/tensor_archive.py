"""Checks of the zip files in which torch keeps tensors: a digest of all content, else the checksums of the zip itself.

torch reads such a file without comparing any checksum. The digest is one more entry of the zip, a sha256 over names
and bytes of all others: of every tensor's values, and of `data.pkl`, which has names, types, shapes and all plain data.
Needs no torch, and unpickles nothing.
"""

import hashlib
import logging
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

DIGEST = "defectlab_sha256"  # entry in the zip, beside torch's own
LOCAL_HEADER = 30  # bytes before an entry's name and its extra field
MAX_ENTRIES = 200_000  # a network of 2,000 layers and its optimiser have 20,000 tensors; each entry costs time to open
BLOCK = 4 << 20  # bytes that are hashed as one; a part of the digest's definition
THREADS = min(4, os.cpu_count() or 1)
MAGIC = b"PK\x03\x04"


class DamagedArchiveError(InputError):
    """Raised for a file of tensors whose content is not what was written."""


def is_archive(path: Path) -> bool:
    """Return whether a file begins as a zip."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def add_digest(path: Path) -> None:
    """Add the digest to a file that `torch.save` has just written; equal content gives equal bytes."""
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.infolist()[0].filename.partition("/")[0]
        digest = _sha256(_mapped(path), archive.infolist())
        archive.writestr(zipfile.ZipInfo(f"{folder}/{DIGEST}"), digest)  # ZipInfo: a fixed date


def check_archive(path: Path) -> None:
    """Compare a file of tensors with its digest or, without one, with the checksums of its zip; once while unchanged.

    Raises:
        DamagedArchiveError: It has other content than was written, or is no zip that torch writes.
    """
    state = path.stat()
    _check(path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _check(path: Path, _inode: int, _size: int, _mtime_ns: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            _compare(path, _mapped(path), archive.infolist())
    except (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError, OverflowError) as error:
        raise DamagedArchiveError(
            f"{path} is cut, damaged or changed: {str(error)[:200]}. "
            "Copy it again from where it came, or make it again."
        ) from error


def _compare(path: Path, content: mmap.mmap, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise zipfile.BadZipFile(f"{len(entries)} entries, more than the {MAX_ENTRIES} that are read")
    stored = [entry for entry in entries if entry.filename.endswith(f"/{DIGEST}")]
    if stored:
        (_, digest), *_ = _slices(content, stored[:1])
        if bytes(digest) != _sha256(content, [entry for entry in entries if entry is not stored[0]]).encode():
            raise zipfile.BadZipFile("its content is not that of its digest")
        return
    for entry, values in _slices(content, entries):  # files from before there was a digest, and those of other code
        if entry.CRC and zlib.crc32(values) != entry.CRC:  # 0: torch was told to compute none
            raise zipfile.BadZipFile(f"the checksum of {entry.filename!r} is another")
    logger.info("%s has no digest (written before there was one, or by other code): compared its checksums", path.name)


def _sha256(content: mmap.mmap, entries: list[zipfile.ZipInfo]) -> str:
    """Return the hex sha256 over each entry's name, size and the sha256s of its blocks, which threads compute."""
    digest = hashlib.sha256()
    with ThreadPoolExecutor(THREADS) as threads:  # hashing releases the interpreter's lock
        for entry, values in _slices(content, entries):
            digest.update(f"{entry.filename}\n{entry.file_size}\n".encode("utf-8", "surrogatepass"))
            blocks = [values[start : start + BLOCK] for start in range(0, len(values), BLOCK)]
            hashed = map(_block_sha256, blocks) if len(blocks) < 2 else threads.map(_block_sha256, blocks)
            digest.update(b"".join(hashed))
    return digest.hexdigest()


def _block_sha256(values: memoryview) -> bytes:
    return hashlib.sha256(values).digest()


def _slices(content: mmap.mmap, entries: list[zipfile.ZipInfo]) -> Iterator[tuple[zipfile.ZipInfo, memoryview]]:
    """Yield each entry with its bytes, not copied. An entry that is compressed, or beyond the file, is refused."""
    whole = memoryview(content)
    for entry in entries:
        header = whole[entry.header_offset : entry.header_offset + LOCAL_HEADER]
        if entry.compress_type != zipfile.ZIP_STORED or header[:4] != MAGIC:
            raise zipfile.BadZipFile(f"the entry {entry.filename!r} is not as torch writes it")
        name, extra = struct.unpack("<HH", header[26:30])
        start = entry.header_offset + LOCAL_HEADER + name + extra
        if start + entry.file_size > len(whole):
            raise zipfile.BadZipFile(f"the entry {entry.filename!r} is cut")
        yield entry, whole[start : start + entry.file_size]


def _mapped(path: Path) -> mmap.mmap:
    """Return a file mapped into memory, unmapped with its last view."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
