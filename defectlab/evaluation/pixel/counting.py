"""Exact counts of the scores below each of many reference scores, without sorting all scores.

Few scores are simply sorted. Where the float32 values between the lowest and the highest reference score are few
enough, each has its own place in a table, in which scores are counted. Otherwise scores are counted in about a million
ordered bins: only scores that share a bin with a reference score can lie on either side of it, so only they are sorted.

Scores are read in chunks small enough to stay in the cache: the first access to memory costs more than all arithmetic
on it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

BINS = 1 << 20
MAX_SORTED = 1 << 18  # scores that are sorted at once
CHUNK_SIZE = 1 << 20  # others looked up, and places of a table added up, at one time: bounds the memory
MAX_KEYS = 40_000_000  # of a table: 160 MB for each thread
MAX_THREADS = 4

Counts = NDArray[np.int64]
Scores = NDArray[np.float32]
_Input = TypeVar("_Input")
_Result = TypeVar("_Result")


class _Counter(Protocol):
    def add(self, scores: Scores) -> None:
        """Count scores (n,), which must not contain NaN."""

    def join(self, other: "_Counter") -> None:
        """Add the counts of another counter of the same class to this one."""

    def finish(self) -> None:
        """Prepare the counter for `counts`, after all scores have been added."""

    def counts(self, distinct: Scores) -> tuple[Counts, Counts]:
        """Return how many scores lie below each of `distinct` (k,), and how many are at most equal to it."""


def count_scores(
    chunks: Sequence[_Input], read: Callable[[_Input], Scores], distinct: Scores, total: int
) -> tuple[Counts, Counts]:
    """Return how many scores lie below each of `distinct` (k,), and how many are at most equal to it: (k,) each.

    Args:
        chunks: What `read` makes scores (n,) of, in any order, without NaN; at most a million at a time work best.
        read: Called once for each chunk, in threads.
        distinct: (k,) ascending, each once.
        total: Number of all scores.
    """

    def count(own: Iterable[_Input]) -> _Counter:
        counter = _counter(distinct, total)
        for chunk in own:
            counter.add(read(chunk))
        return counter

    first, *others = in_threads(count, _shares(chunks, 1 if total <= MAX_SORTED else threads()))
    for other in others:
        first.join(other)
    first.finish()
    below, up_to = np.empty(distinct.size, dtype=np.int64), np.empty(distinct.size, dtype=np.int64)
    for chunk in _chunks(distinct.size):
        below[chunk], up_to[chunk] = first.counts(distinct[chunk])
    return below, up_to


def _counter(distinct: Scores, total: int) -> _Counter:
    if total <= MAX_SORTED or not distinct.size:
        return _Sorted()
    low, high = (int(_keys(distinct[end : end + 1].copy())[0]) for end in (0, distinct.size - 1))
    if high - low < min(MAX_KEYS, total):
        return _ByKey(low, high, total)
    width = float(distinct[-1]) - float(distinct[0])
    return _Binned(distinct, width, total) if 1e-30 < width < 1e30 else _Sorted()


def _keys(scores: Scores) -> NDArray[np.int32]:
    """Convert float32 scores in place to integers in the same order; adjacent floats become adjacent integers."""
    scores += np.float32(0)  # -0.0 becomes 0.0, which it equals
    keys = scores.view(np.int32)
    if keys.size and keys.min() < 0:
        keys ^= (keys >> np.int32(31)) & np.int32(0x7FFFFFFF)
    return keys


class _Sorted:
    """A counter that stores all scores and sorts them."""

    def __init__(self) -> None:
        self._chunks = [np.empty(0, dtype=np.float32)]
        self._ascending = self._chunks[0]

    def add(self, scores: Scores) -> None:
        self._chunks.append(scores.copy())

    def join(self, other: _Counter) -> None:
        assert isinstance(other, _Sorted)
        self._chunks += other._chunks

    def finish(self) -> None:
        self._ascending = np.concatenate(self._chunks)
        self._chunks = []
        self._ascending.sort()

    def counts(self, distinct: Scores) -> tuple[Counts, Counts]:
        ascending = self._ascending
        below = np.searchsorted(ascending, distinct, "left")
        up_to = below.copy()
        # Most of the others are there once or not at all: only those that are there twice are looked up again.
        once = np.flatnonzero(below < ascending.size)
        once = once[ascending[below[once]] == distinct[once]]
        up_to[once] += 1
        twice = once[up_to[once] < ascending.size]
        twice = twice[ascending[up_to[twice]] == distinct[twice]]
        up_to[twice] = np.searchsorted(ascending, distinct[twice], "right")
        return below, up_to


class _Table:
    """Base of the counters that hold a table of counts, indexed by places in the order of the scores."""

    def __init__(self, places: int, total: int) -> None:
        # the smaller type where it is enough
        self._table: NDArray[np.integer] = np.zeros(places, dtype=np.uint32 if total < 1 << 32 else np.int64)

    def _places(self, scores: Scores) -> NDArray[np.int32]:
        raise NotImplementedError

    def add(self, scores: Scores) -> None:
        np.add.at(self._table, self._places(scores), self._table.dtype.type(1))

    def join(self, other: _Counter) -> None:
        assert isinstance(other, _Table)
        np.add(self._table, other._table, out=self._table)

    def finish(self) -> None:
        """Replace each count by the cumulative count up to and including its place."""
        for chunk in _chunks(self._table.size):
            here = self._table[chunk]
            if chunk.start:
                here[0] += self._table[chunk.start - 1]
            here[:] = np.cumsum(here, dtype=self._table.dtype)


class _ByKey(_Table):
    """A table with a place for every float32 from `low` to `high`, and one at each end for all other scores."""

    def __init__(self, low: int, high: int, total: int) -> None:
        super().__init__(high - low + 3, total)
        self._low, self._high = low, high

    def _places(self, scores: Scores) -> NDArray[np.int32]:
        keys = _keys(scores.copy())
        np.clip(keys, self._low - 1, self._high + 1, out=keys)
        keys -= np.int32(self._low - 1)
        return keys

    def counts(self, distinct: Scores) -> tuple[Counts, Counts]:
        places = self._places(distinct)
        return self._table[places - 1].astype(np.int64), self._table[places].astype(np.int64)


class _Binned(_Table):
    """Bins of equal width over the range of `distinct`; a higher score is never in a lower bin.

    Scores that share a bin with one of `distinct` are sorted separately, as they can lie on either side of it.
    """

    def __init__(self, distinct: Scores, width: float, total: int) -> None:
        super().__init__(BINS, total)
        self._low = distinct[0]
        self._scale = np.float32((BINS - 2) / width)
        self._taken = np.zeros(BINS, dtype=np.bool_)
        for chunk in _chunks(distinct.size):
            self._taken[self._places(distinct[chunk])] = True
        self._close = _Sorted()

    def _places(self, scores: Scores) -> NDArray[np.int32]:
        """Return each score's bin: 0 or 1 below the lowest of `distinct`, clipped to the last bin at the upper end."""
        with np.errstate(over="ignore"):  # an infinite place is an end
            places = (scores - self._low) * self._scale
        places += np.float32(1)
        return np.clip(places, 0, BINS - 1, out=places).astype(np.int32)

    def add(self, scores: Scores) -> None:
        places = self._places(scores)
        self._close.add(scores[self._taken[places]])
        np.add.at(self._table, places, self._table.dtype.type(1))

    def join(self, other: _Counter) -> None:
        assert isinstance(other, _Binned)
        super().join(other)
        self._close.join(other._close)

    def finish(self) -> None:
        self._table[self._taken] = 0
        super().finish()
        self._close.finish()

    def counts(self, distinct: Scores) -> tuple[Counts, Counts]:
        below, up_to = self._close.counts(distinct)
        outside = self._table[self._places(distinct)].astype(np.int64)
        return below + outside, up_to + outside


def _chunks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK_SIZE, size)) for start in range(0, size, CHUNK_SIZE))


def threads() -> int:
    """Return the number of threads to use: OMP_NUM_THREADS if set, else one per processor; at most `MAX_THREADS`."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(asked) if asked.isdecimal() and int(asked) else os.cpu_count() or 1, MAX_THREADS)


def in_threads(work: Callable[[_Input], _Result], chunks: Sequence[_Input]) -> list[_Result]:
    """Return `work(chunk)` for each chunk, computed in parallel threads; numpy releases the GIL in the costly parts."""
    if len(chunks) == 1:
        return [work(chunks[0])]
    with ThreadPoolExecutor(len(chunks)) as pool:
        return list(pool.map(work, chunks))


def _shares(chunks: Sequence[_Input], count: int) -> list[Sequence[_Input]]:
    """Split a sequence into at most `count`, but at least one, consecutive parts of about equal length."""
    count = max(1, min(count, len(chunks)))
    edges = [len(chunks) * number // count for number in range(count + 1)]
    return [chunks[begin:end] for begin, end in pairwise(edges)]
