"""Which checkpoints a run writes and keeps."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from anomalib.callbacks.checkpoint import ModelCheckpoint
from anomalib.utils.serialization import anomalib_safe_globals
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks import ModelCheckpoint as PlainModelCheckpoint

from defectlab.errors import InputError
from defectlab.results.record import Run

logger = logging.getLogger(__name__)


def weights_only_checkpoints(given: Sequence[Callback], run: Run) -> list[Callback]:
    """Return the callback that writes each epoch's weights without the optimiser's state; none beside a given one."""
    if any(isinstance(callback, PlainModelCheckpoint) for callback in given):
        return []
    folder = run.checkpoint.parent
    name = run.checkpoint.stem
    return [ModelCheckpoint(dirpath=folder, filename=name, auto_insert_metric_name=False, save_weights_only=True)]


def check_resumable(checkpoint: Path) -> None:
    """Refuse to go on training from a checkpoint that has weights alone.

    Raises:
        InputError: With what keeps the rest.
    """
    with anomalib_safe_globals():
        found = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    if "optimizer_states" not in found:
        raise InputError(
            f"{checkpoint} has weights without the optimiser's state, so no training can go on from it. "
            "Train with Engine(keep_checkpoint='all') to keep that state."
        )


def drop_checkpoint(run: Run) -> None:
    """Remove a tested run's own checkpoint, and say so in its record."""
    if not run.checkpoint.is_file():
        return
    size = run.checkpoint.stat().st_size
    run.checkpoint.unlink()
    run.update(checkpoint=None)
    logger.info("Removed the checkpoint (%.1f MB), as asked for by keep_checkpoint='none'", size / 1e6)
