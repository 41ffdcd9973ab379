"""The recipe of the project's own backbone: every number that decides its weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Two phases: small crops at a constant rate, then large crops while the rate falls to zero along a cosine.

    `batch` crops are spread over `shards` replicas, each with batch-norm statistics of its own; the gradients are
    averaged in a fixed order. A shard runs on one thread, so the result does not depend on how many there are. At the
    end the batch-norm statistics are taken again, over `settling` batches of crops nearer to the size of real images.
    """

    small_steps: int = 3800
    large_steps: int = 1700
    small: int = 48
    large: int = 64
    small_batch: int = 40
    large_batch: int = 40
    shards: int = 2
    per_kind: int = 60
    cell_sheets: int = 30
    colour: float = 0.4
    rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up: int = 60
    smoothing: float = 0.1
    fine_weight: float = 0.5
    pooled_weight: float = 0.5
    defect_weight: float = 1.0
    settling: int = 8
    settling_size: int = 160
    settling_batch: int = 12
    seed: int = 42

    @property
    def steps(self) -> int:
        """The number of optimiser steps."""
        return self.small_steps + self.large_steps

    def shape(self, step: int) -> tuple[int, int]:
        """Return (crops per shard, crop size) of a step."""
        small = step < self.small_steps
        return (self.small_batch if small else self.large_batch) // self.shards, self.small if small else self.large
