"""Features of frozen backbones, computed once for all epochs of a training, or taken from a cache."""

import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from defectlab.data.folder import Folder, ImageFiles
from defectlab.data.manifest import Entry
from defectlab.models.cached import TakesFeatures
from defectlab.progress import progress_bar

logger = logging.getLogger(__name__)

BATCH = 8
IN_MEMORY = 2 * 2**30  # bytes; more is kept in a file, which the system holds in memory where it has some to spare


class FrozenBackboneDetector(TakesFeatures):
    """A model that trains on embeddings of a frozen backbone: each image's is computed once, before the first epoch.

    Images that training augments are the exception: they are seen anew each time. `model` has the parts `features` and
    `embed`; the latter gives one tensor.
    """

    _frozen: "FrozenFeatures | None" = None

    def trains_on_names(self, datamodule: Any) -> bool:
        """Whether training needs no pixels, for their features are at hand: not where images are augmented."""
        return is_frozen(datamodule)

    def on_train_start(self) -> None:
        """Compute the embeddings of all training images."""
        data: Any = getattr(self.trainer, "datamodule", None)
        self._frozen = FrozenFeatures.of(self, data) if is_frozen(data) else None

    def on_train_end(self) -> None:
        """Let go of them."""
        self._frozen = None

    def embedding(self, batch: Any) -> torch.Tensor:
        """Return (B, C, h, w) of a batch, from the embeddings at hand where they are."""
        if self._frozen is not None:
            return self._frozen.embedding(batch, self)
        return self.compute_embedding(batch)

    @torch.no_grad()
    def compute_embedding(self, batch: Any) -> torch.Tensor:
        """Return (B, C, h, w) of a batch's pixels, or of its images' features in the cache."""
        features = self.cached_features(batch)
        return self.model.embed(self.model.features(batch.image) if features is None else features)

    def embed_cached(self, entries: Sequence[Entry]) -> torch.Tensor:
        """Return (n, C, h, w) of images in the cache, on the model's device."""
        return self.model.embed(self.features_of(entries))


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
    def of(cls, model: FrozenBackboneDetector, datamodule: Folder) -> "FrozenFeatures":
        """Compute the embeddings of the training images, in the manifest's order, on the model's device."""
        manifest = datamodule.manifest
        entries = manifest.split("train")
        values: torch.Tensor | None = None
        done, spare = 0, 0
        with progress_bar("Features", len(entries)) as progress, torch.no_grad():
            for embedding in _embeddings(model, datamodule, entries):
                if values is None:
                    shape = (len(entries), *embedding.shape[1:])
                    values, spare = _room(shape, str(model.trainer.default_root_dir))
                values[done : done + len(embedding)] = embedding
                done += len(embedding)
                progress(done, len(entries))
        assert values is not None  # there are training images: the manifest refuses to have none
        return cls({str(manifest.absolute(entry)): row for row, entry in enumerate(entries)}, values, spare)

    def embedding(self, batch: Any, model: FrozenBackboneDetector) -> torch.Tensor:
        """Return (B, C, h, w) of a batch on the model's device; validation images are computed the first time."""
        paths: Sequence[str] = batch.image_path
        if all(path in self._rows for path in paths):
            return self._values[[self._rows[path] for path in paths]].to(model.device)
        if all(path in self._others for path in paths):
            return torch.stack([self._others[path] for path in paths]).to(model.device)
        computed = model.compute_embedding(batch)
        if computed.nbytes <= self._spare:
            self._spare -= computed.nbytes
            self._others |= dict(zip(paths, computed.cpu(), strict=True))
        return computed


def _embeddings(model: FrozenBackboneDetector, datamodule: Folder, entries: Sequence[Entry]) -> Iterator[torch.Tensor]:
    """Yield the embeddings (B, C, h, w) of images batch by batch."""
    if model._cached is not None:
        for start in range(0, len(entries), BATCH):
            yield model.embed_cached(entries[start : start + BATCH])
        return
    files = ImageFiles([datamodule.manifest.absolute(entry) for entry in entries], model.preprocessing)
    loader = DataLoader(files, batch_size=BATCH, collate_fn=files.collate_fn, num_workers=datamodule.num_workers)
    transform = model.preprocessing.transform()
    for batch in loader:
        yield model.model.embed(model.model.features(transform(batch.image.to(model.device))))


def _room(shape: tuple[int, ...], folder: str) -> tuple[torch.Tensor, int]:
    """Return a float32 tensor of a shape, in memory or in a file, and the bytes of memory left for more."""
    size = 4 * math.prod(shape)
    where = "in memory" if size <= IN_MEMORY else f"in a file under {folder}"
    logger.info("Features of %d training images, computed once: %.2f GB %s", shape[0], size / 1e9, where)
    if size <= IN_MEMORY:
        return torch.empty(shape), IN_MEMORY - size
    with tempfile.TemporaryFile(dir=folder) as file:  # the mapping keeps it alive
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape)), IN_MEMORY
