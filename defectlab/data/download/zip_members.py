"""The members of a zip from an untrusted source."""

import io
import stat
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import IO

from defectlab.data.download.archive_members import Member, RefusedError, clean_name, shown

MAX_DIRECTORY_BYTES = 64 << 20  # of the list of members, which `zipfile` reads at once: a hundred bytes for each

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def zip_members(file: IO[bytes]) -> Iterator[Member]:
    """Yield the members of a zip.

    Raises:
        RefusedError: One is refused: by its name, as a link or a device, encrypted or compressed by an unknown method.
    """
    _check_directory(file)
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = clean_name(info.orig_filename)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise RefusedError(f"{shown(name)} is a link or a device")
            if info.flag_bits & 1:
                raise RefusedError(f"{shown(name)} is encrypted")
            if info.compress_type not in _METHODS:
                raise RefusedError(
                    f"{shown(name)} is compressed by a method (number {info.compress_type}) that is unknown"
                )
            if info.is_dir():
                yield Member(name, None, io.BytesIO)
            else:
                yield Member(name, info.file_size, partial(archive.open, info))


def _check_directory(file: IO[bytes]) -> None:
    """Check the size of the list of members, as the record at the end of the file states it."""
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
