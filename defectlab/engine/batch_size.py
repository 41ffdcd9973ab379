"""Search for the largest training batch size that fits into memory, by trial."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile

import torch
from lightning.pytorch import Trainer

from defectlab.data.folder import Folder
from defectlab.models.base import BaseDetector
from defectlab.utils.logs import quiet_lightning
from defectlab.utils.memory import free_memory, is_out_of_memory
from defectlab.utils.seeds import seeded
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)


def find_batch_size(
    model: BaseDetector, datamodule: Folder, *, start: int = 2, trials: int = 5, steps: int = 3, device: str = "auto"
) -> int:
    """Return the largest batch size of start, 2 start, 4 start, ... that trains for a few steps without running out.

    Copies of model and datamodule are tried, so both stay as they are. At most `trials` sizes, none larger than the
    training set: on a CPU, whose memory rarely says no, that is what ends it.

    Raises:
        InputError: Even `start` runs out of memory.
    """
    images = len(datamodule.manifest.split("train"))
    sizes = [size for size in (start * 2**trial for trial in range(trials)) if size <= images] or [images]
    fitting = list(takewhile(lambda size: _fits(model, datamodule, size, steps, device), sizes))
    if not fitting:
        raise InputError(
            f"Not even {sizes[0]} images a batch fit into memory: take a smaller image_size, backbone or model."
        )
    largest = fitting[-1]
    limit = "memory" if largest != sizes[-1] else f"{trials} trials" if largest * 2 <= images else f"{images} images"
    logger.info("Batch size %d: the largest that worked (limit: %s)", largest, limit)
    return largest


@contextmanager
def found_batch_size(model: BaseDetector, datamodule: Folder, *, device: str) -> Iterator[None]:
    """Set a datamodule's training batch size to the one found inside the block, and restore its own after it.

    Others may train with the same datamodule.

    Raises:
        InputError: As `find_batch_size`.
    """
    given = datamodule.train_batch_size
    datamodule.train_batch_size = find_batch_size(model, datamodule, device=device)
    try:
        yield
    finally:
        datamodule.train_batch_size = given


def _fits(model: BaseDetector, datamodule: Folder, size: int, steps: int, device: str) -> bool:
    trial, images = copy.deepcopy(model), copy.copy(datamodule)
    images.train_batch_size, images.num_workers = size, 0
    try:
        with quiet_lightning(), seeded(model.seed, "batch size"):
            silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
            options = {"max_steps": steps, "max_epochs": steps, "limit_val_batches": 0, "accelerator": device}
            options |= {"devices": 1, **dict.fromkeys(silent, False)}
            Trainer(**{**trial.trainer_arguments, **options}).fit(trial, datamodule=images)
    except (RuntimeError, MemoryError, torch.OutOfMemoryError) as error:
        if not is_out_of_memory(error):
            raise
        logger.info("%d images a batch run out of memory", size)
        free_memory()
        return False
    return True
