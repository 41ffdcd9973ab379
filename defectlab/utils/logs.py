"""The log where a person sees it, without touching the logging that a program has set up."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from defectlab.utils.progress import in_notebook

# Other packages' notes to their own developers, raised whenever they are imported.
IMPORT_WARNINGS = (
    "Importing from timm.models.layers is deprecated",
    "The anomalib.models.components.dinov2 package is",
)


class _ConsoleHandler(logging.StreamHandler):
    """Writes where a person reads at this moment: above a progress bar, which stands in for standard error meanwhile.

    A notebook shows standard error on red, as if each line were a fault; there the log goes to standard output.
    """

    @property
    def stream(self) -> TextIO:
        return sys.stdout if in_notebook() else sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """Ignore the stream of the moment of construction."""


def show_log() -> None:
    """Print DefectLab's messages to standard error, unless somebody handles them already."""
    package = logging.getLogger("defectlab")
    if not package.handlers and not logging.getLogger().handlers:
        handler = _ConsoleHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)
        package.propagate = False


def ignore_import_warnings() -> None:
    """Silence `IMPORT_WARNINGS`, by their text."""
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
    """Silence advice and advertisements; what a person needs to know the engine says itself."""
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
