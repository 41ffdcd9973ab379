"""What was logged while a run was under way, with the time, in its own folder."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from defectlab.results.run.run import Run

LOG = "log.txt"


class _RunLog(logging.Handler):
    """Appends lines to a run's log; no file stays open, for the folder may be renamed meanwhile."""

    def __init__(self, run: Run) -> None:
        super().__init__(logging.INFO)
        self._run = run
        self.setFormatter(logging.Formatter("%(asctime)s\t%(levelname)s\t%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Append one message; a full disk costs the line, not the run."""
        try:
            with (self._run.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(f"{self.format(record)}\n")
        except OSError:
            self.handleError(record)


@contextmanager
def logged(run: Run) -> Iterator[None]:
    """Keep what DefectLab logs in a block in the run's `log.txt`: time, level and message, apart by tabs."""
    package, handler = logging.getLogger("defectlab"), _RunLog(run)
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
