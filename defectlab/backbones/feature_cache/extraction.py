"""Extraction of backbone features of every image of a dataset, in one pass for all requested layers."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.feature_cache.store import DTYPES, FeatureStore
from defectlab.data.datasets import load_image
from defectlab.data.folder import Folder
from defectlab.data.manifest.manifest import Entry, Manifest, check_unchanged
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.utils.progress import progress_bar
from defectlab_runtime.errors import InputError, OptionError

logger = logging.getLogger(__name__)

FORMAT = 1  # raise it when images are read or features are computed otherwise than before
BATCH = 8


@dataclass(frozen=True)
class Features:
    """Features of a dataset: `layers` maps a layer to (N, C, h, w), memory-mapped, rows as in `manifest.entries`."""

    manifest: Manifest
    layers: dict[str, np.ndarray]

    def of(self, entries: Sequence[Entry], layers: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Return the features of the images of `entries`, in the given order: {layer: (n, C, h, w)} float32 tensors.

        `layers` are the layers to return; None means all.
        """
        rows = [self.manifest.index(entry.path) for entry in entries]
        wanted = self.layers if layers is None else layers
        return {layer: torch.from_numpy(np.asarray(self.layers[layer][rows])).float() for layer in wanted}


def extract(
    data: Folder | Manifest,
    backbone: Backbone,
    preprocessing: Preprocessing,
    layers: Sequence[str],
    store: FeatureStore,
    *,
    dtype: str | None = None,
    device: str | torch.device = "cpu",
    workers: int = 0,
    extractor: FeatureExtractor | None = None,
) -> dict[str, np.ndarray]:
    """Return {layer: (N, C, h, w)} for every image of a dataset, rows as in `manifest.entries`; see `Features`.

    Features are those a model's `features` part gives: the image read and pre-processed as in training, no
    augmentation. Layers that the store holds for the same images (by content), pre-processing, weights and kind of
    device are read from it; all others come from one pass over the images, and are kept.

    Args:
        data: A datamodule or its manifest.
        backbone: From `load_backbone`.
        preprocessing: A model's `preprocessing`.
        layers: Names, in any order.
        store: Where they are kept.
        dtype: float32, or float16 for half the space, which rounds each number by up to 0.05 %; None is the store's.
        device: Where the backbone runs.
        workers: Processes that read images.
        extractor: One of this backbone and these layers, on that device; None makes one.

    Raises:
        OptionError: A layer that the backbone does not have, another dtype, or features too large for float16.
    """
    dtype = store.dtype if dtype is None else dtype
    if dtype not in DTYPES:
        raise OptionError(f"extract: dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    if preprocessing.tiling is not None:
        raise OptionError("extract: features of tiled images are not kept; leave tiling out.")
    manifest = data.manifest if isinstance(data, Folder) else data
    wanted = list(dict.fromkeys(layers))
    source = feature_source(manifest, backbone, preprocessing, dtype, torch.device(device).type)
    keys = {layer: {**source, "layer": layer} for layer in wanted}
    found = {layer: store.get(key) for layer, key in keys.items()}
    if any(array is None for array in found.values()):
        with store.locked(source):
            found = {layer: store.get(key) for layer, key in keys.items()}
            missing = [layer for layer in wanted if found[layer] is None]
            if missing:
                _compute(manifest, backbone, preprocessing, {layer: keys[layer] for layer in missing}, store, dtype,
                         torch.device(device), workers, extractor)  # fmt: skip
            found |= {layer: store.get(keys[layer]) for layer in missing}
    kept = {layer: array for layer, array in found.items() if array is not None}
    if len(kept) < len(wanted):  # another process, with a limit of its own, has just removed them
        raise InputError(f"The cache {store.root} is too small for what works with it now: raise its limit (limit_gb).")
    return kept


def feature_source(
    manifest: Manifest, backbone: Backbone, preprocessing: Preprocessing, dtype: str = "float32", device: str = "cpu"
) -> dict[str, Any]:
    """Return the store's key of features without its `layer` entry: everything else that determines the values."""
    images = hashlib.sha256("\n".join(entry.sha256 for entry in manifest.entries).encode()).hexdigest()
    precision = backbone.spec.precision
    return {
        "what": "features",
        "format": FORMAT,
        "images": images,
        "count": len(manifest.entries),
        "preprocessing": preprocessing.hash,
        "backbone": backbone.spec.name,
        "architecture": backbone.spec.architecture,
        "weights": backbone.weights.sha256,
        "dtype": dtype,
        "device": device,
        **({} if precision == "float32" else {"precision": precision}),
    }


def _compute(
    manifest: Manifest,
    backbone: Backbone,
    preprocessing: Preprocessing,
    keys: dict[str, dict[str, Any]],
    store: FeatureStore,
    dtype: str,
    device: torch.device,
    workers: int,
    extractor: FeatureExtractor | None = None,
) -> None:
    extractor = extractor or FeatureExtractor(backbone, list(keys)).to(device)
    shapes = extractor.feature_shapes(preprocessing.input_size)
    count = len(manifest.entries)
    logger.info("Features of %d images, one pass for %s", count, ", ".join(keys))
    wanted = [(keys[layer], (count, *shapes[layer]), dtype) for layer in keys]
    with store.writing(wanted) as arrays, progress_bar("Features", count) as progress:
        done = 0
        for batch in _batches(manifest, preprocessing, workers):
            features = extractor(batch.to(device))
            for layer, array in zip(keys, arrays, strict=True):
                values = features[layer].float().cpu().numpy()
                if dtype == "float16" and np.abs(values).max() > np.finfo(np.float16).max:
                    raise OptionError(f"Layer {layer} has features too large for float16: take dtype float32.")
                array[done : done + len(batch)] = values
            done += len(batch)
            progress(done, count)
        check_unchanged(manifest)  # before they are kept under the names of the old ones


def _batches(manifest: Manifest, preprocessing: Preprocessing, workers: int) -> Iterator[torch.Tensor]:
    loader = DataLoader(_Images(manifest, preprocessing), batch_size=BATCH, num_workers=workers)
    yield from loader


class _Images(Dataset):
    """Dataset of every image of a manifest, prepared as model input (3, H, W)."""

    def __init__(self, manifest: Manifest, preprocessing: Preprocessing) -> None:
        self.paths = [manifest.absolute(entry) for entry in manifest.entries]
        self.resize, self.transform = preprocessing.resize(), preprocessing.transform()
        self.bit_depth = preprocessing.bit_depth

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return one image as model input, resized and then transformed as in training."""
        pixels: torch.Tensor = self.transform(self.resize(load_image(self.paths[index], self.bit_depth)))
        return pixels.as_subclass(torch.Tensor)
