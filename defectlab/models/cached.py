"""Backbone features from a cache in place of pixels, for models whose backbone is frozen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from defectlab.errors import InputError
from defectlab.models.base import BaseDetector

if TYPE_CHECKING:
    from defectlab.data.manifest import Entry
    from defectlab.features.extraction import Features


class TakesFeatures(BaseDetector):
    """A model that trains, validates and tests on backbone features, where a cache has those of its images."""

    _cached: "Features | None" = None

    def use_features(self, features: "Features | None") -> None:
        """Take the backbone's features of a dataset's images from a cache from now on; None computes them again.

        They must be those of this model's backbone and pre-processing, as `defectlab.features.extract` gives them.

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
