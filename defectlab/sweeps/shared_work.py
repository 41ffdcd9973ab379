"""Work that configurations share: features from one pass of the backbone, masks read once, and the store of arrays."""

import logging
import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from defectlab.backbones.feature_cache.extraction import Features, extract, feature_source
from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.data.datasets import masks_on_input
from defectlab.data.manifest.manifest import Entry, Manifest
from defectlab.sweeps.configurations import Configuration

logger = logging.getLogger(__name__)

FORMAT = 1  # to be raised when the numbers of a coreset order, a search or a fit change


class SharedWork:
    """The shared work of a sweep: computed when first needed, kept in the store, and timed.

    Args:
        configurations: All of the sweep, finished ones too: what is asked of a shared computation never depends on
            where a killed sweep goes on.
        store: Where arrays are kept.
    """

    def __init__(self, configurations: Iterable[Configuration], store: FeatureStore) -> None:
        self.store = store
        self.layers: dict[Hashable, list[str]] = defaultdict(list)
        self.seconds: dict[str, float] = defaultdict(float)
        self._features: dict[Hashable, Features] = {}
        self._masks: dict[Hashable, torch.Tensor | None] = {}
        self.expect(configurations)

    def expect(self, configurations: Iterable[Configuration]) -> None:
        """Register the layers that configurations need, so that one pass of the backbone computes all of them."""
        for one in configurations:
            if one.takes_features:
                known = self.layers[one.feature_key]
                wanted = dict.fromkeys([*one.model.options["layers"], *one.more_layers])
                new = [layer for layer in wanted if layer not in known]
                if new:
                    known += new
                    self._features.pop(one.feature_key, None)

    @contextmanager
    def timed(self, what: str) -> Any:
        """Add the seconds that the block takes to those of `what`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - begin

    def features(self, one: Configuration) -> Features:
        """Return the features of a configuration's images, for all layers that any configuration needs of them."""
        key = one.feature_key
        if key not in self._features:
            assert one.backbone is not None
            manifest = one.datamodule.manifest
            options: dict[str, Any] = {"device": one.engine.device, "workers": one.datamodule.num_workers}
            layers = sorted(self.layers[key])
            with self.timed("features"):
                arrays = extract(manifest, one.backbone, one.model.preprocessing, layers, self.store, **options)
            self._features[key] = Features(manifest, arrays)
        return self._features[key]

    def feature_source(self, one: Configuration) -> dict[str, Any]:
        """Return the part of the store's key that identifies a configuration's features, without the layer."""
        assert one.backbone is not None
        device = one.engine.device.type
        return feature_source(one.datamodule.manifest, one.backbone, one.model.preprocessing, self.store.dtype, device)

    def key(self, group: Sequence[Configuration], what: str, **more: Any) -> dict[str, Any]:
        """Return the store's key for the array `what` that a group computes once."""
        options, split = group[0].model.options, group[0].datamodule.manifest.hash
        facts = {"split": split, "layers": options["layers"], "seed": options["seed"], "format": FORMAT}
        return {
            **self.feature_source(group[0]),
            **facts,
            "what": what,
            "layer": f"{'+'.join(options['layers'])} {what}",
            **more,
        }

    def masks(self, one: Configuration, entries: Sequence[Entry]) -> torch.Tensor | None:
        """Return the masks (n, H, W) of `entries` on the model's input; None for a dataset without masks."""
        key = (id(one.datamodule), one.model.preprocessing.hash)
        if key not in self._masks:
            with self.timed("masks"):
                reduction = one.datamodule.settings.mask_reduction
                masks = list(masks_on_input(one.datamodule.manifest, entries, one.model.preprocessing, reduction))
                self._masks[key] = torch.stack(masks) if masks else None
        return self._masks[key]

    def forget(self) -> None:
        """Release the features and masks that are held in memory."""
        self._features.clear()
        self._masks.clear()


def scored_entries(manifest: Manifest) -> list[Entry]:
    """Return the entries of all scored images, validation before test, without duplicates."""
    return list(dict.fromkeys([*manifest.split("validation"), *manifest.split("test")]))


def as_tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return a copy of a stored array, which is read-only, as a tensor on a device."""
    return torch.from_numpy(np.array(array)).to(device)
