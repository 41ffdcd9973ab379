"""The largest training batch that memory holds, by trial."""

import copy
import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from lightning.pytorch import Trainer

from defectlab.data.folder import Folder
from defectlab.models.base import BaseDetector
from defectlab.utils.errors import InputError
from defectlab.utils.logs import quiet_lightning
from defectlab.utils.memory import free_memory, is_out_of_memory
from defectlab.utils.seeds import seeded

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


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
    found = None
    for size in sizes:
        if not _fits(model, datamodule, size, steps, device):
            break
        found = size
    if found is None:
        raise InputError(
            f"Not even {sizes[0]} images a batch fit into memory: take a smaller image_size, backbone or model."
        )
    limit = "memory" if found != sizes[-1] else f"{trials} trials" if found * 2 <= images else f"{images} images"
    logger.info("Batch size %d: the largest that worked (limit: %s)", found, limit)
    return found


def restores_batch_size(method: Callable[P, T]) -> Callable[P, T]:
    """Leave the training batch size of a datamodule as it was before the call: others may train with it too."""

    @functools.wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        given = [(one, one.train_batch_size) for one in (*args, *kwargs.values()) if isinstance(one, Folder)]
        try:
            return method(*args, **kwargs)
        finally:
            for datamodule, size in given:
                datamodule.train_batch_size = size

    return called


def _fits(model: BaseDetector, datamodule: Folder, size: int, steps: int, device: str) -> bool:
    trial, images = copy.deepcopy(model), copy.copy(datamodule)
    images.train_batch_size, images.num_workers = size, 0
    try:
        with quiet_lightning(), seeded(model.seed, "batch size"):
            options = {
                "max_steps": steps,
                "max_epochs": steps,
                "limit_val_batches": 0,
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "accelerator": device,
                "devices": 1,
            }
            Trainer(**{**trial.trainer_arguments, **options}).fit(trial, datamodule=images)
    except (RuntimeError, MemoryError, torch.OutOfMemoryError) as error:
        if not is_out_of_memory(error):
            raise
        logger.info("%d images a batch run out of memory", size)
        free_memory()
        return False
    return True
