"""Models that learn from the features of a frozen backbone, computed once for all epochs of a training."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from defectlab.data.folder import Folder
from defectlab.models.embedding_store import EmbeddingStore
from defectlab.models.feature_scaling import BATCH_SIZE, ScaledFeaturesDetector
from defectlab.utils.progress import progress_bar
from defectlab_runtime.errors import InputError

if TYPE_CHECKING:
    from defectlab.backbones.feature_cache.extraction import Features
    from defectlab.data.manifest.manifest import Entry


class FrozenBackboneDetector(ScaledFeaturesDetector):
    """A model that learns from embeddings of a frozen backbone: the same in every epoch unless images are augmented.

    Embeddings come from the store of the training, which the model opens, else from the feature cache, which a sweep
    provides, else from the pixels. `embed` of the torch model returns one tensor or a list of them.
    """

    _cached: "Features | None" = None
    _entries: "dict[str, Entry]"  # of the images in the cache, by path
    _store: EmbeddingStore | None = None

    def use_features(self, features: "Features | None") -> None:
        """Use cached backbone features of a dataset's images from now on; None stops using them.

        The features must be those of this model's backbone and pre-processing, as `feature_cache.extract` gives them.

        Raises:
            InputError: A layer is missing.
        """
        wanted = self.options["layers"]
        missing = [] if features is None else [layer for layer in wanted if layer not in features.layers]
        if missing:
            raise InputError(
                f"{self.name}: these features lack {', '.join(missing)}: extract all of the model's layers."
            )
        self._cached = features
        manifest = features.manifest if features is not None else None
        self._entries = {str(manifest.absolute(entry)): entry for entry in manifest.entries} if manifest else {}

    def open_store(self, *splits: str) -> EmbeddingStore:
        """Create the embedding store of this training, for the images of the manifest's `splits`."""
        images = sum(len(self._datamodule.manifest.split(split)) for split in splits)
        self._store = EmbeddingStore(images, self.trainer.default_root_dir)
        return self._store

    def on_train_end(self) -> None:
        """Drop the store of embeddings at the end of the training."""
        self._store = None

    def embedding(self, batch: Any) -> list[torch.Tensor]:
        """Return a batch's embeddings, (B, C, h, w) each, and store those that are computed."""
        stored = self._store.get(batch.image_path, self.device) if self._store is not None else None
        if stored is not None:
            return stored
        with torch.no_grad():
            features = self.cached_features(batch)
            embedding = as_list(self.model.embed(self.model.features(batch.image) if features is None else features))
        if self._store is not None:
            self._store.put(batch.image_path, embedding)
        return embedding

    def cached_features(self, batch: Any) -> dict[str, torch.Tensor] | None:
        """Return the features (B, C, h, w) of each layer for a batch's images; None unless all are in the cache."""
        augmented = self.trainer.training and not features_repeat(self._datamodule)
        paths = batch.image_path
        if self._cached is None or augmented or not paths or not all(path in self._entries for path in paths):
            return None
        return self._features_of([self._entries[path] for path in paths])

    def store_training_images(self) -> None:
        """Compute and store the embeddings of all training images, in the manifest's order."""
        assert self._store is not None
        manifest, done = self._datamodule.manifest, 0
        paths = [str(manifest.absolute(entry)) for entry in manifest.split("train")]
        with progress_bar("Features", len(paths)) as progress, torch.no_grad():
            for features in self._training_features():
                embedding = as_list(self.model.embed(features))
                self._store.put(paths[done : done + len(embedding[0])], embedding)
                done += len(embedding[0])
                progress(done, len(paths))

    def _training_features(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the features (B, C, h, w) of each layer for one batch of training images after another."""
        if self._cached is None:
            yield from super()._training_features()
            return
        entries = self._datamodule.manifest.split("train")
        for start in range(0, len(entries), BATCH_SIZE):
            yield self._features_of(entries[start : start + BATCH_SIZE])

    def _features_of(self, entries: "Sequence[Entry]") -> dict[str, torch.Tensor]:
        """Return the cached features (n, C, h, w) of each of the model's layers, on its device."""
        assert self._cached is not None
        layers = self._cached.of(entries, self.options["layers"])
        return {layer: values.to(self.device) for layer, values in layers.items()}


def features_repeat(datamodule: Any) -> bool:
    """Whether each training image has the same features in every epoch: there are no training augmentations."""
    return isinstance(datamodule, Folder) and datamodule.train_augmentations is None


def as_list(embedding: torch.Tensor | list[torch.Tensor]) -> list[torch.Tensor]:
    """Return an embedding as a list of tensors."""
    return embedding if isinstance(embedding, list) else [embedding]
