"""The age of files by the clock of the disk that they lie on, which may be another machine's network drive."""

import os
import tempfile
import time
from pathlib import Path


def age_of(path: Path) -> float:
    """Return how many seconds ago a file or folder was last written; below 0 if its date is of a time to come.

    The date is compared with that of a file written now beside it, since the clock of this machine may be another.

    Raises:
        FileNotFoundError: Nothing is there.
    """
    date = path.stat().st_mtime
    return file_system_time(path.parent) - date


def file_system_time(folder: Path) -> float:
    """Return the date of a file written now into a folder; the clock of this machine if none can be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"now")
            file.flush()
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
