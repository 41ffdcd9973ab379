"""Console output of the log, which leaves logging that a program has configured unchanged."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from defectlab.utils.progress import in_notebook
from defectlab_runtime import names

# Other packages' notes to their own developers, raised whenever they are imported.
IMPORT_WARNINGS = (
    "Importing from timm.models.layers is deprecated",
    "The anomalib.models.components.dinov2 package is",
)


class LogFormatter(logging.Formatter):
    """Formatter whose messages cannot command a terminal: file names and errors in them may hold control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message and its traceback, with escapes but for line breaks and tabs."""
        return names.terminal(super().format(record), lines=True)


class _ConsoleHandler(logging.StreamHandler):
    """Log handler that writes to the current standard error, which an active progress bar may have replaced.

    A notebook shows standard error in red, like errors, so there the log goes to standard output.
    """

    @property
    def stream(self) -> TextIO:
        return sys.stdout if in_notebook() else sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """Ignore assignments, as the stream is determined at each access."""


def show_log() -> None:
    """Print DefectLab's log messages to the console, unless logging is configured already."""
    package = logging.getLogger("defectlab")
    if not package.handlers and not logging.getLogger().handlers:
        handler = _ConsoleHandler()
        handler.setFormatter(LogFormatter("%(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)
        package.propagate = False


def ignore_import_warnings() -> None:
    """Ignore the warnings whose text begins with one of `IMPORT_WARNINGS`."""
    for message in IMPORT_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


# Lightning's advice on what these models do on purpose: fit without an optimiser, keep the backbone in eval mode.
EXPECTED_WARNINGS = (
    ".*configure_optimizers.* returned .None.",
    "Found .* module.* in eval mode",
    "You called .self.log.*no logger configured",
    ".*does not have many workers",
    "The dirpath has changed from",
    ".*isinstance.treespec, LeafSpec.* is deprecated",
    "The number of training batches .* is smaller than the logging interval",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's log messages below warnings, and the warnings of `EXPECTED_WARNINGS`."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric")]
    levels = [chatty.level for chatty in loggers]
    for chatty in loggers:
        chatty.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for chatty, level in zip(loggers, levels, strict=True):
            chatty.setLevel(level)
