"""Features of frozen backbones, computed once for all epochs of a training."""

import logging
import math
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from defectlab.data.folder import Folder, ImageFiles
from defectlab.progress import progress_bar

if TYPE_CHECKING:
    from defectlab.models.base import BaseDetector

logger = logging.getLogger(__name__)

BATCH = 8
IN_MEMORY = 2 * 2**30  # bytes; more is kept in a file, which the system holds in memory where it has some to spare


def is_frozen(datamodule: Any) -> bool:
    """Whether each training image has the same features in every epoch: there are no training augmentations."""
    return isinstance(datamodule, Folder) and datamodule.train_augmentations is None


class FrozenFeatures:
    """Embeddings (C, h, w) of images by path: of all training images at once, of validation images as they come.

    Kept in memory up to `IN_MEMORY` bytes, else in an unnamed file in the run's folder, which vanishes with this object
    or its process.
    """

    def __init__(self, rows: dict[str, int], values: torch.Tensor, spare: int) -> None:
        self._rows = rows
        self._values = values  # (N, C, h, w)
        self._others: dict[str, torch.Tensor] = {}
        self._spare = spare

    @classmethod
    def of(cls, model: "BaseDetector", datamodule: Folder) -> "FrozenFeatures":
        """Compute the embeddings of the training images, in the manifest's order, on the model's device."""
        manifest = datamodule.manifest
        files = [manifest.absolute(entry) for entry in manifest.split("train")]
        images = ImageFiles(files, model.preprocessing)
        loader = DataLoader(images, batch_size=BATCH, collate_fn=images.collate_fn, num_workers=datamodule.num_workers)
        transform = model.preprocessing.transform()
        values: torch.Tensor | None = None
        done, spare = 0, 0
        with progress_bar("Features", len(files)) as progress, torch.no_grad():
            for batch in loader:
                pixels = transform(batch.image.to(model.device))
                embedding = model.model.embed(model.model.features(pixels)).cpu()
                if values is None:
                    values, spare = _room((len(files), *embedding.shape[1:]), str(model.trainer.default_root_dir))
                values[done : done + len(embedding)] = embedding
                done += len(embedding)
                progress(done, len(files))
        assert values is not None  # there are training images: the manifest refuses to have none
        return cls({str(file): row for row, file in enumerate(files)}, values, spare)

    def embedding(self, batch: Any, model: "BaseDetector") -> torch.Tensor:
        """Return (B, C, h, w) of a batch on the model's device; validation images are computed the first time."""
        paths: Sequence[str] = batch.image_path
        if all(path in self._rows for path in paths):
            return self._values[[self._rows[path] for path in paths]].to(model.device)
        if all(path in self._others for path in paths):
            return torch.stack([self._others[path] for path in paths]).to(model.device)
        with torch.no_grad():
            computed = model.model.embed(model.model.features(batch.image))
        if computed.nbytes <= self._spare:
            self._spare -= computed.nbytes
            self._others |= dict(zip(paths, computed.cpu(), strict=True))
        return computed


def _room(shape: tuple[int, ...], folder: str) -> tuple[torch.Tensor, int]:
    """Return a float32 tensor of a shape, in memory or in a file, and the bytes of memory left for more."""
    size = 4 * math.prod(shape)
    where = "in memory" if size <= IN_MEMORY else f"in a file under {folder}"
    logger.info("Features of %d training images, computed once: %.2f GB %s", shape[0], size / 1e9, where)
    if size <= IN_MEMORY:
        return torch.empty(shape), IN_MEMORY - size
    with tempfile.TemporaryFile(dir=folder) as file:  # the mapping keeps it alive
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape)), IN_MEMORY
