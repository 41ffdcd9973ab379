"""The folder that an archive is unpacked to before its content is moved to its place beside it."""

import logging
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from defectlab.data.download.public_datasets import OWN_TABLE
from defectlab.utils.file_age import age_of
from defectlab_runtime import names

logger = logging.getLogger(__name__)

PREFIX = ".unpacking-"
LOCK = "lock"
CONTENT = "content"
GRACE_S = 60.0  # between a folder's creation and its lock, and for the writing of a table
OTHER_MACHINE_S = 86_400.0  # a lock of another machine may not be seen here


@contextmanager
def scratch_folder(destination: Path) -> Iterator[Path]:
    """Yield a new folder in `destination`, removed with all in it at the end; those of killed processes go first."""
    _clear(destination)
    outer = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=_machine(), dir=destination))
    lock = FileLock(outer / LOCK)
    try:
        with lock:
            inner = outer / CONTENT
            inner.mkdir()
            yield inner
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def _machine() -> str:
    return f"@{names.path(platform.node(), empty='host', most=60)}"


def _clear(destination: Path) -> None:
    for part in destination.glob(f".{OWN_TABLE}.*.part"):
        with suppress(OSError):
            if age_of(part) >= GRACE_S:
                part.unlink()
    for folder in destination.glob(f"{PREFIX}*"):
        with suppress(OSError, Timeout, NotImplementedError):
            grace = OTHER_MACHINE_S
            if folder.name.endswith(_machine()):
                grace = 0.0 if (folder / CONTENT).exists() else GRACE_S  # made under the lock: whoever has it lives
            if folder.is_symlink() or age_of(folder) < grace:
                continue
            with FileLock(folder / LOCK, timeout=0):
                pass
            shutil.rmtree(folder)
            logger.info("Removed %s, which a process that was killed had left", names.printable(str(folder)))
