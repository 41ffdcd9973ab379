"""Models that fit once, on the embeddings of all training images."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from defectlab.models.base import BaseDetector


class MemoryBankDetector(BaseDetector):
    """A model that fits once on the embeddings of all training images, in the order of the manifest."""

    tiled_by: ClassVar[str | None] = "features"
    rows_are_patches: ClassVar[bool] = False  # then embeddings are kept patch by patch, of which rows are no copy

    def on_train_start(self) -> None:
        """Discard an earlier fit, so that a second `fit` uses only the data of the second training."""
        self._is_fitted = torch.tensor([False], device=self.device)
        self._embeddings: list[tuple[list[str], torch.Tensor]] = []

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Store the embeddings (B, C, h, w) of one training batch."""
        del args, kwargs
        with torch.no_grad():
            embedding = self.model.embed(self.model.features(batch.image))
        self._embeddings.append((list(batch.image_path), embedding))
        return torch.tensor(0.0, requires_grad=True, device=self.device)

    def fit(self) -> None:
        """Fit on the stored embeddings, sorted as in the manifest, so that the order of batches does not matter.

        An image that was seen several times, each time augmented anew, counts as often: pass by pass.
        """
        seen: Counter[str] = Counter()
        views = []  # (path, pass) in the order of the batches
        for batch_paths, _ in self._embeddings:
            for path in batch_paths:
                views.append((path, seen[path]))
                seen[path] += 1
        data = getattr(self.trainer, "datamodule", None)
        manifest = getattr(data, "manifest", None)
        order = sorted(views, key=lambda view: (view[0] if manifest is None else manifest.index(view[0]), view[1]))
        rank = {view: index for index, view in enumerate(order)}
        ranks = [rank[view] for view in views]
        _, first = self._embeddings[0]
        # A batch is copied to its place and dropped: on the CPU, where untouched memory costs nothing, the embeddings
        # exist once; on a GPU twice for a moment.
        layout = torch.channels_last if self.rows_are_patches else torch.contiguous_format
        shape = (len(views), *first.shape[1:])
        stacked = torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=layout)
        while self._embeddings:
            batch_paths, embedding = self._embeddings.pop()
            stacked[ranks[len(ranks) - len(batch_paths) :]] = embedding
            del ranks[len(ranks) - len(batch_paths) :]
        grid = (stacked.shape[-2], stacked.shape[-1])
        self.model.fit(self.model.rows(stacked))
        if manifest is not None and getattr(data, "train_augmentations", None) is None:
            self.fitted_on([manifest.index(path) for path, _ in order], grid)

    def fitted_on(self, images: Sequence[int], grid: tuple[int, int]) -> None:
        """Receive the fitted images' positions in the manifest, and height and width of the patch grid."""
