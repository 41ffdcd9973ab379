"""Log file in a run's folder, with a time for each message."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from defectlab.results.run.ownership import is_lost
from defectlab.results.run.run import Run
from defectlab.utils.logs import LogFormatter

LOG = "log.txt"


class _RunLog(logging.Handler):
    """Handler that appends lines to a run's log without keeping the file open, since the folder may be renamed."""

    def __init__(self, run: Run) -> None:
        super().__init__(logging.INFO)
        self._run = run
        self.setFormatter(LogFormatter("%(asctime)s\t%(levelname)s\t%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Append one message to the log file; a write error loses the line but does not stop the run."""
        if is_lost(self._run.folder):  # the log there, if any, is another process's
            return
        try:
            with (self._run.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(f"{self.format(record)}\n")
        except OSError:
            self.handleError(record)


@contextmanager
def logged(run: Run) -> Iterator[None]:
    """Write DefectLab's log messages within a block to the run's `log.txt` as tab-separated time, level and message."""
    package, handler = logging.getLogger("defectlab"), _RunLog(run)
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
