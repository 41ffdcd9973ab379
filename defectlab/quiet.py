"""Lightning's running commentary, kept out of notebooks."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

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
