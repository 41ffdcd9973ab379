"""The members of a tar from an untrusted source.

The headers are walked here and not by `tarfile`, which reads a header of any claimed size into memory, follows negative
sizes in a circle, and takes an archive that is cut between two files for a whole one.
"""

import io
import tarfile
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import IO

from defectlab.data.download.archive_members import Member, RefusedError, clean_name, shown

MAX_HEADERS = 1_500_000  # a member has at most a long name, attributes and its own header
MAX_HEADER_BYTES = 1 << 20  # of an extra header (long names, attributes): some hundred bytes
MAX_HEADERS_BYTES = 256 << 20  # of all of them
MAX_PADDING_BYTES = 16 << 20  # of zeros behind the end: tar writes 10 KB
BLOCK = tarfile.BLOCKSIZE  # a header, and the unit of a file's size

_CHUNK = 1 << 20
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EXTRA = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


def tar_members(file: IO[bytes]) -> Iterator[Member]:
    """Yield the members of a tar, unpacked by `file` if it is compressed; open one before the next is asked for.

    Raises:
        RefusedError: One is refused, by its name or as anything but a whole file or folder; or the tar is cut.
    """
    long_name, extra = None, dict[str, bytes]()
    left = MAX_HEADERS_BYTES
    for _ in range(MAX_HEADERS):
        block = file.read(BLOCK)
        if not block:
            raise RefusedError("it is cut: its end is missing")
        if not block.strip(b"\0"):
            _check_padding(file)
            return
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type in _EXTRA:
            header = _read_header(file, info.size)
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
            yield Member(name, None, io.BytesIO)
        elif info.type not in _FILES or any(key.startswith("GNU.sparse") for key in extra):
            raise RefusedError(f"{shown(name)} is a link, a device or a file with holes")
        else:
            size = int(extra.get("size", b"%d" % info.size))
            if size < 0:
                raise RefusedError(f"{shown(name)} claims {size:,} bytes")
            content = _Content(file, size)
            yield Member(name, size, partial(nullcontext, content))
            file.seek(content.left + -size % BLOCK, 1)
        long_name, extra = None, {}
    raise RefusedError(f"it holds more than {MAX_HEADERS:,} headers")


class _Content:
    """The content of one file in a tar, read from the stream of the whole."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self.left = file, size

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes, none at the file's end."""
        found = self._file.read(min(count, self.left))
        self.left -= len(found)
        return found


def _read_header(file: IO[bytes], size: int) -> bytes:
    if not 0 <= size <= MAX_HEADER_BYTES:
        raise RefusedError(f"a header claims {size:,} bytes, more than {MAX_HEADER_BYTES:,}")
    content = file.read(size + -size % BLOCK)
    if len(content) < size:
        raise RefusedError("it is cut in a header")
    return content[:size]


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


def _check_padding(file: IO[bytes]) -> None:
    """Read to the end, which also compares a compressed file's checksum: only zeros may be left."""
    left = MAX_PADDING_BYTES
    while chunk := file.read(_CHUNK):
        left -= len(chunk)
        if left < 0 or chunk.strip(b"\0"):
            raise RefusedError("something follows its end")
