"""A store of arrays in memory with the interface of `FeatureStore`: holds the arrays a task is given and makes."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

Key = Mapping[str, Any]
Arrays = dict[str, np.ndarray]


class MemoryStore:
    """A store of arrays by key in memory; `made` holds the arrays that were not given.

    Args:
        given: Arrays by the text of their key, see `text_of`; never written to.
        dtype: That features of backbones are kept in.

    >>> store = MemoryStore()
    >>> store.get_or_make({"n": 3}, lambda: np.arange(3)).tolist(), sorted(store.made)
    ([0, 1, 2], ['{"n": 3}'])
    >>> MemoryStore(store.made).get({"n": 3}).tolist(), MemoryStore(store.made).made
    ([0, 1, 2], {})
    """

    def __init__(self, given: Mapping[str, np.ndarray] | None = None, dtype: str = "float32") -> None:
        self.dtype = dtype
        self.made: Arrays = {}
        self._given = dict(given or {})

    def get(self, key: Key) -> np.ndarray | None:
        """Return the array stored under `key`, or None if there is none."""
        text = text_of(key)
        return self.made.get(text, self._given.get(text))

    def has(self, key: Key) -> bool:
        """Whether an array is stored under `key`."""
        return self.get(key) is not None

    def get_or_make(self, key: Key, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array stored under `key`; a missing one is made and stored."""
        found = self.get(key)
        if found is None:
            found = self.made[text_of(key)] = make()
        return found

    @contextmanager
    def locked(self, key: Key) -> Iterator[None]:
        """Do nothing: other processes cannot access arrays in memory, so no lock is needed."""
        yield

    @contextmanager
    def writing(self, wanted: Sequence[tuple[Key, tuple[int, ...], Any]]) -> Iterator[Sequence[np.ndarray]]:
        """Yield a writable array for each (key, shape, dtype); they are stored if the block ends without an error."""
        arrays = [np.empty(shape, dtype) for _, shape, dtype in wanted]
        yield arrays
        self.made |= {text_of(key): array for (key, _, _), array in zip(wanted, arrays, strict=True)}


def text_of(key: Key) -> str:
    """Return a key as JSON text with sorted names."""
    return json.dumps(dict(key), sort_keys=True)
