"""Independent random streams, one per purpose, from one seed; the global random state is restored."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def stream_seed(seed: int, purpose: str) -> int:
    """Return the seed of the stream named `purpose`: stable on every machine, unrelated between purposes."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:7], "big")


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a torch CPU generator seeded for one purpose."""
    return torch.Generator().manual_seed(stream_seed(seed, purpose))


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's and numpy's global generators inside the block and restore them after it.

    Use it for code that draws from the global generators, such as a constructor of anomalib or FrEIA.
    """
    numpy_state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(stream_seed(seed, purpose))
        np.random.seed(stream_seed(seed, purpose) % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
