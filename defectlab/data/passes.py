"""Training images seen several times, each time drawn anew: by the seed alone, whoever reads them."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class Passes(Sampler[int]):
    """Every image `passes` times an epoch, in seeded orders.

    It yields places in an endless row of passes: `divmod(place, images)` is which pass it is since the training began,
    and which image. What is drawn for it then depends on neither worker nor batch.
    """

    def __init__(self, images: int, passes: int, draws: torch.Generator) -> None:
        self.images = images
        self.passes = passes
        self._draws = draws
        self._done = 0

    def __len__(self) -> int:
        return self.images * self.passes

    def __iter__(self) -> Iterator[int]:
        """Yield the places of one epoch."""
        for _ in range(self.passes):
            order = torch.randperm(self.images, generator=self._draws)
            first = self.images * self._done
            self._done += 1
            yield from (first + order).tolist()
