"""Features of frozen backbones, kept from the first epoch on: later epochs neither read images nor run the backbone."""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from defectlab.data.folder import Folder, ManifestDataset

logger = logging.getLogger(__name__)

MOST_BYTES = 4 * 2**30


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
