"""The lock of a folder that runs lie in: a file lock, and one that needs none.

Network drives may lack file locks, or keep them for each machine alone. The lock that needs none is a hidden folder
with an owner file, moved to its place by a rename, which fails where a lock is. It has a heartbeat as run folders have
(`ownership`). One whose process has ended, or was silent for `SILENT_SECONDS`, is moved to a name made from its owner.
That name stays taken for a while: of all who found this lock abandoned only one can move it, and none moves the lock of
whoever came next.
"""

import errno
import json
import logging
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from defectlab.results.run.ownership import BEAT_SECONDS, OWNER, claim, is_owned, moved, release
from defectlab.results.run.processes import has_ended
from defectlab.results.run.record import ProcessRecord
from defectlab.utils import paths
from defectlab_runtime import names

logger = logging.getLogger(__name__)

NAME = ".locked"  # beside it, as those of reruns: .locked.take-<random> and .locked.broken-<hash of the owner>
SILENT_SECONDS = 6 * BEAT_SECONDS  # by the clock of who waits
POLL_SECONDS = 0.02
MISSES = 100  # renames in a row that failed though no lock was there: not another process, but the disk
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@contextmanager
def locked(parent: Path) -> Iterator[None]:
    """Let processes and machines take turns in `parent`, so that none finds a folder half moved.

    Network drives may have no file locks, or locks for one machine only: `folder_lock` needs none. A file lock ends
    with its process, so that others of this machine need not find out that it has ended.
    """
    lock = FileLock(parent / ".lock")
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.info("%s has no file locks (%s)", paths.relative(parent), error.strerror)
    try:
        with folder_lock(parent):
            yield
    finally:
        lock.release()


@contextmanager
def folder_lock(parent: Path) -> Iterator[None]:
    """Hold the lock of a folder, after waiting for the process or machine that holds it.

    Raises:
        OSError: The folder cannot be written to.
    """
    own, lock = parent / f"{NAME}.take-{secrets.token_hex(4)}", parent / NAME
    own.mkdir()
    try:
        claim(own)
        mark = (own / OWNER).read_text(encoding="utf-8")
        _acquire(own, lock)
        try:
            _clear(parent)
            yield
        finally:
            if _mark(lock) == mark:  # not taken by another meanwhile
                lock.rename(own)
                moved(lock, own)
    finally:
        release(lock)
        release(own)
        shutil.rmtree(own, ignore_errors=True)


def pause() -> None:
    """Wait a moment for the process that holds the lock."""
    time.sleep(POLL_SECONDS)


def _acquire(own: Path, lock: Path) -> None:
    seen, since, misses = None, time.monotonic(), 0
    while True:
        try:
            own.rename(lock)  # fails where a folder with content is
        except OSError:
            misses = 0 if lock.exists() else misses + 1
            if misses > MISSES:
                raise
        else:
            moved(own, lock)
            return
        mark = _mark(lock)
        sign = (mark, _date(lock))
        if sign != seen:
            seen, since = sign, time.monotonic()
        if _is_of_ended_process(mark) or time.monotonic() - since > SILENT_SECONDS:
            _break(lock, mark)
        if lock.exists() or misses:
            pause()


def _is_of_ended_process(mark: str) -> bool:
    try:
        return has_ended(ProcessRecord.from_dict(json.loads(mark)))
    except ValueError:
        return False


def _break(lock: Path, mark: str) -> None:
    broken = lock.with_name(f"{NAME}.broken-{names.short_hash(mark)}")
    with suppress(OSError):  # another process was faster
        lock.rename(broken)
        (broken / OWNER).write_bytes(b"")  # dated now: it is cleared when no one can still be about to move it
        logger.info("Took over %s, whose process ended or was silent: %s", paths.relative(lock), mark)


def _clear(parent: Path) -> None:
    for folder in parent.glob(f"{NAME}.*-*"):
        if not is_owned(folder, None):
            shutil.rmtree(folder, ignore_errors=True)


def _mark(lock: Path) -> str:
    try:
        return (lock / OWNER).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _date(lock: Path) -> float:
    try:
        return (lock / OWNER).stat().st_mtime
    except OSError:
        return 0.0
