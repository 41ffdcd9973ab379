"""Embeddings of the images of one training, computed once for all of its epochs."""

import logging
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

logger = logging.getLogger(__name__)

MAX_MEMORY_BYTES = 2 * 2**30  # bytes; more goes to a file, which the system holds in memory where it has some to spare


class EmbeddingStore:
    """Embeddings of up to `images` images by path, each a list of tensors (C, h, w), float32 on the CPU.

    In memory up to `MAX_MEMORY_BYTES`, else in an unnamed file in `folder`, which vanishes with this object
    or its process.
    """

    def __init__(self, images: int, folder: str | Path) -> None:
        self.images = images
        self._folder = folder
        self._rows: dict[str, int] = {}
        self._tensors: list[torch.Tensor] = []  # (images, C, h, w) each, allocated for the first embeddings

    @property
    def complete(self) -> bool:
        """Whether the embeddings of all images are stored."""
        return len(self._rows) == self.images

    def get(self, paths: Sequence[str], device: torch.device) -> list[torch.Tensor] | None:
        """Return the embeddings (B, C, h, w) of a batch; None if one of its images has none yet."""
        if not all(path in self._rows for path in paths):
            return None
        rows = [self._rows[path] for path in paths]
        return [tensor[rows].to(device) for tensor in self._tensors]

    def put(self, paths: Sequence[str], embeddings: Sequence[torch.Tensor]) -> None:
        """Store the embeddings (B, C, h, w) of a batch, of as many new images as there is room for."""
        if not self._tensors:
            self._tensors = self._allocate([tuple(embedding.shape[1:]) for embedding in embeddings])
        for number, path in enumerate(paths):
            if path not in self._rows and not self.complete:
                row = self._rows[path] = len(self._rows)
                for tensor, embedding in zip(self._tensors, embeddings, strict=True):
                    tensor[row] = embedding[number]

    def _allocate(self, shapes: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
        """Return a tensor (images, *shape) for each shape, all in memory or all in a file."""
        whole = [(self.images, *shape) for shape in shapes]
        size = 4 * sum(map(math.prod, whole))
        in_memory = size <= MAX_MEMORY_BYTES
        where = "in memory" if in_memory else f"in a file under {self._folder}"
        logger.info("Features of %d images, computed once: %.2f GB %s", self.images, size / 1e9, where)
        return [torch.empty(shape) if in_memory else self._map_file(shape) for shape in whole]

    def _map_file(self, shape: tuple[int, ...]) -> torch.Tensor:
        with tempfile.TemporaryFile(dir=self._folder) as file:  # the mapping keeps it alive
            return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))
