"""Features of frozen backbones, computed once for all epochs of a training, or taken from a cache."""

import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from defectlab.data.datasets import ImageFiles
from defectlab.data.folder import Folder
from defectlab.data.manifest.manifest import Entry
from defectlab.models.base import BaseDetector
from defectlab.utils.errors import InputError
from defectlab.utils.progress import progress_bar

if TYPE_CHECKING:
    from defectlab.backbones.feature_cache.extraction import Features
    from defectlab.data.manifest.manifest import Entry
from defectlab.data.datasets import ManifestDataset

logger = logging.getLogger(__name__)

BATCH = 8
IN_MEMORY = 2 * 2**30  # bytes; more is kept in a file, which the system holds in memory where it has some to spare


MOST_BYTES = 4 * 2**30


class TakesFeatures(BaseDetector):
    """A model that trains, validates and tests on backbone features, where a cache has those of its images."""

    _cached: "Features | None" = None

    def use_features(self, features: "Features | None") -> None:
        """Take the backbone's features of a dataset's images from a cache from now on; None computes them again.

        They must be those of this model's backbone and pre-processing, as `feature_cache.extract` gives them.

        Raises:
            InputError: A layer is missing.
        """
        missing = (
            [] if features is None else [layer for layer in self.options["layers"] if layer not in features.layers]
        )
        if missing:
            raise InputError(
                f"{self.name}: these features lack {', '.join(missing)}: extract all of the model's layers."
            )
        self._cached = features

    def cached_features(self, batch: Any) -> dict[str, torch.Tensor] | None:
        """Return the features (B, C, h, w) of each layer for a batch's images; None unless all are in the cache."""
        if self._cached is None or not batch.image_path:
            return None
        manifest = self._cached.manifest
        entries = {str(manifest.absolute(entry)): entry for entry in manifest.entries}
        if not all(path in entries for path in batch.image_path):
            return None
        return self.features_of([entries[path] for path in batch.image_path])

    def features_of(self, entries: "Sequence[Entry]") -> dict[str, torch.Tensor]:
        """Return the cached features (n, C, h, w) of each of the model's layers, on its device."""
        assert self._cached is not None
        layers = self._cached.of(entries, self.options["layers"])
        return {layer: values.to(self.device) for layer, values in layers.items()}


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


class KeptFeatures:
    """What `embed` gave for each training image, on the CPU, by path.

    Images beyond `most` bytes are not kept: their features are computed again in each epoch.
    """

    def __init__(self, images: int, most: int = MOST_BYTES) -> None:
        self.images = images
        self.most = most
        self.bytes = 0
        self._kept: dict[str, list[torch.Tensor]] = {}
        self._full = False

    @classmethod
    def for_training(cls, model: Any) -> "KeptFeatures | None":
        """Return a store for the training that starts now; None where features change or are asked for only once."""
        trainer = model.trainer
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, Folder) or data.train_augmentations is not None or (trainer.max_epochs or 0) == 1:
            return None
        if model.preprocessing.tiling is not None:  # an image's tiles share its path
            return None
        return cls(len(data.manifest.split("train")))

    @property
    def complete(self) -> bool:
        """Whether every training image's features are here."""
        return len(self._kept) == self.images

    def get(self, paths: Sequence[str], device: torch.device) -> list[torch.Tensor] | None:
        """Return the layers' features (B, C, h, w) of a batch; None if one of its images is not here."""
        if not all(path in self._kept for path in paths):
            return None
        layers = zip(*(self._kept[path] for path in paths), strict=True)
        return [torch.stack(layer).to(device) for layer in layers]

    def put(self, paths: Sequence[str], layers: Sequence[torch.Tensor]) -> None:
        """Keep the features (B, C, h, w) of a batch, as long as there is room."""
        for number, path in enumerate(paths):
            size = sum(layer[number].nbytes for layer in layers)
            if self.bytes + size > self.most:
                if not self._full:
                    logger.info(
                        "Features of %d of %d training images are kept (%.1f GB); the others' are computed each epoch",
                        len(self._kept), self.images, self.bytes / 1e9,
                    )  # fmt: skip
                self._full = True
                return
            if path not in self._kept:
                self._kept[path] = [layer[number].to("cpu", copy=True) for layer in layers]
                self.bytes += size
        if self.complete:
            logger.info("Features of all training images are kept: %.2f GB", self.bytes / 1e9)


def need_images(model: Any, kept: KeptFeatures | None) -> None:
    """Tell the training's dataset whether the next epoch needs pixels."""
    dataset = getattr(getattr(model.trainer, "datamodule", None), "train_data", None)
    if isinstance(dataset, ManifestDataset):
        dataset.without_pixels = kept is not None and kept.complete
