"""Errors of a disk, explained: which disk, how much is free, what helps; and files that may not be read."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from defectlab_runtime.errors import InputError

_ERRORS = {
    errno.ENOSPC: "the disk, or what you may use of it, is full",
    errno.EDQUOT: "what you may use of this disk (your quota) is full",
    errno.EFBIG: "a file of this size is not allowed there",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.EIO: "the disk does not answer as it should (input/output error): check the disk, its cable or its network",
}
_TORCH = ("PytorchStreamWriter", "unexpected pos", "iostream error")  # how torch.save ends where a write failed
_SHARED = ("unable to allocate shared memory", "out of shared memory")  # of torch, where loader processes have no room
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ELSEWHERE = "put the files elsewhere: DEFECTLAB_RESULTS, DEFECTLAB_CACHE and DEFECTLAB_WORKBOOK say where."


class DiskError(InputError, OSError):
    """Raised where a file cannot be written, or not be read; `errno` is that of the system's error.

    It is an OSError too, for callers that go on without the file.
    """


@contextmanager
def disk_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Explain an error of the disk that a block, which writes `path` or files in it, ends with.

    Errors of other files, such as one that the block reads, and all other errors pass as they are.

    Args:
        path: The file or folder.
        needed: Bytes that it takes, if known.

    Raises:
        DiskError: The disk is full, read-only, forbidden or broken, or a file beside `path` may not be read.
    """
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        if (explained := explain(error, path, needed)) is None:
            raise
        raise explained from error


def explain(error: BaseException, path: Path, needed: int | None = None) -> DiskError | None:
    """Return the explanation of an error that writing `path` ended with; None if it is no error of its disk.

    A file that the error names and that may not be read is one to read, whatever the block does otherwise.
    """
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _SHARED):
        return _no_shared_memory()
    code = _code(error)
    if code not in _ERRORS or not _concerns(error, path):
        return None
    if code in (errno.EACCES, errno.EPERM) and (closed := _closed(error)) is not None:
        found = DiskError(
            f"{closed[0]} cannot be read: you may not open {closed[1]}. Change its permissions (chmod u+rX), or copy "
            "what you need of it to where you may read it."
        )
        found.errno = code
        return found
    folder = next(one for one in (path.absolute(), *path.absolute().parents) if one.is_dir())
    room = ""
    if code in NO_ROOM:
        asked = "" if needed is None else f", {_size(needed)} needed"
        room = f" ({_free(folder)}{asked})"
    found = DiskError(
        f"{path} cannot be written: {_ERRORS[code]}{room}. Disk: {_mount_point(folder)}. Nothing written before is "
        f"changed. {'Free space on it' if code in NO_ROOM else 'Make it writable'}, or {_ELSEWHERE}"
    )
    found.errno = code
    return found


def _no_shared_memory() -> DiskError:
    folder = Path("/dev/shm")
    size = f" ({folder}: {_size(shutil.disk_usage(folder).total)})" if folder.is_dir() else ""
    found = DiskError(
        f"The processes that read images have too little shared memory{size} for their batches. Set data.num_workers "
        "to 0, take smaller batches, or give the container more (docker run --shm-size=2g)."
    )
    found.errno = errno.ENOSPC
    return found


def _code(error: BaseException) -> int | None:
    """Return the system's error number of a failed write, which some libraries only put into words."""
    if isinstance(error, OSError):
        return error.errno
    if type(error).__module__.startswith("safetensors"):  # written in Rust
        found = re.search(r"os error (\d+)", str(error))
        return int(found[1]) if found else None
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH):
        return errno.ENOSPC  # torch does not say what it was
    return None


def _closed(error: BaseException) -> tuple[Path, Path] | None:
    """Return the file named in an error, and it or the first folder on the way to it that is there but closed to us."""
    named = getattr(error, "filename", None)
    if not isinstance(named, str | Path):
        return None
    path = Path(named).absolute()
    for place in (*reversed(path.parents), path):
        if not place.exists():
            return None
        if not os.access(place, os.R_OK if place == path else os.X_OK):
            return path, place
    return None


def _concerns(error: BaseException, path: Path) -> bool:
    """Return whether an error is of `path`, of a file in it or beside it; a failed write names no file."""
    named = getattr(error, "filename", None)
    if not isinstance(named, str | Path):
        return True
    return Path(named).absolute().is_relative_to(path.absolute().parent)


def _free(folder: Path) -> str:
    try:
        if hasattr(os, "statvfs"):
            facts = os.statvfs(folder)
            if facts.f_files and not facts.f_favail:
                return "no room for another file, whatever its size"
        return f"{_size(shutil.disk_usage(folder).free)} free"
    except OSError:
        return "free space unknown"


def _mount_point(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if os.path.ismount(one) or one == one.parent)


def _size(count: float) -> str:
    power = min(3, max(0, len(str(int(count))) - 1) // 3)
    return f"{count / 1000**power:.4g} {('B', 'kB', 'MB', 'GB')[power]}"
