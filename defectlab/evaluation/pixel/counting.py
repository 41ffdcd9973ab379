"""How many scores lie below each of many others, exactly, without sorting them all.

Where scores are many, each possible float32 between the lowest and the highest of the others gets a place of its own in
a table, and scores are counted there. Else they are put into about a million bins, in their order: only those that
share a bin with one of the others can lie on either side of it, so these few are sorted and the rest is counted.

Scores come part by part, each small enough to stay in the cache: memory that is touched for the first time costs more
than all arithmetic on it.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

BINS = 1 << 20
FEW = 1 << 18  # scores that are sorted at once
AT_ONCE = 1 << 20  # others looked up, and places of a table added up, at one time: bounds the memory
MOST_KEYS = 40_000_000  # of a table: 160 MB for each thread
MOST_THREADS = 4

Counts = NDArray[np.int64]
Scores = NDArray[np.float32]
Table = NDArray[np.uint32] | NDArray[np.int64]
_In = TypeVar("_In")
_Found = TypeVar("_Found")


class _Tally(Protocol):
    def add(self, scores: Scores) -> None:
        """Count (n,) scores, without NaN."""

    def join(self, other: "_Tally") -> None:
        """Take over what another one of the same kind has counted."""

    def counts(self, distinct: Scores) -> tuple[Counts, Counts]:
        """Return how many lie below each of (k,) others, and how many up to it; called once, at the end."""


def count_scores(
    parts: Sequence[_In], read: Callable[[_In], Scores], distinct: Scores, total: int
) -> tuple[Counts, Counts]:
    """Return how many scores lie below each of `distinct` (k,), and how many up to it: (k,) each.

    Args:
        parts: What `read` makes scores (n,) of, in any order, without NaN; at most a million at a time work best.
        read: Called once for each part, in threads.
        distinct: (k,) ascending, each once.
        total: Number of all scores.
    """

    def tally(own: Iterable[_In]) -> _Tally:
        mine = _tally(distinct, total)
        for part in own:
            mine.add(read(part))
        return mine

    first, *others = in_threads(tally, _shares(parts, 1 if total <= FEW else threads()))
    for other in others:
        first.join(other)
    return first.counts(distinct)


def _tally(distinct: Scores, total: int) -> _Tally:
    if total <= FEW or not distinct.size:
        return _Sorted()
    low, high = (int(_keys(distinct[end : end + 1].copy())[0]) for end in (0, distinct.size - 1))
    if high - low < min(MOST_KEYS, total):
        return _ByKey(low, high, total)
    width = float(distinct[-1]) - float(distinct[0])
    return _Binned(distinct, width, total) if 1e-30 < width < 1e30 else _Sorted()


def _keys(scores: Scores) -> NDArray[np.int32]:
    """Turn scores into whole numbers of the same order, two neighbouring float32 into two neighbours; in place."""
    scores += np.float32(0)  # -0.0 becomes 0.0, which it equals
    keys = scores.view(np.int32)
    if keys.size and keys.min() < 0:
        keys ^= (keys >> np.int32(31)) & np.int32(0x7FFFFFFF)
    return keys


class _Sorted:
    """All scores, kept and sorted."""

    def __init__(self) -> None:
        self._parts = [np.empty(0, dtype=np.float32)]

    def add(self, scores: Scores) -> None:
        self._parts.append(scores.copy())

    def join(self, other: _Tally) -> None:
        assert isinstance(other, _Sorted)
        self._parts += other._parts

    def counts(self, distinct: Scores) -> tuple[Counts, Counts]:
        ascending = np.concatenate(self._parts)
        self._parts = []
        ascending.sort()
        below, upto = np.empty(distinct.size, dtype=np.int64), np.empty(distinct.size, dtype=np.int64)
        for start in range(0, distinct.size, AT_ONCE):
            here = slice(start, start + AT_ONCE)
            below[here], upto[here] = _ends(ascending, distinct[here])
        return below, upto


class _ByKey:
    """A table with a place for every float32 between two, and one at each end for all others."""

    def __init__(self, low: int, high: int, total: int) -> None:
        self._low = low
        self._high = high
        self._table = _empty_table(high - low + 3, total)

    def _places(self, scores: Scores) -> NDArray[np.int32]:
        keys = _keys(scores.copy())
        np.clip(keys, self._low - 1, self._high + 1, out=keys)
        keys -= np.int32(self._low - 1)
        return keys

    def add(self, scores: Scores) -> None:
        np.add.at(self._table, self._places(scores), self._table.dtype.type(1))

    def join(self, other: _Tally) -> None:
        assert isinstance(other, _ByKey)
        np.add(self._table, other._table, out=self._table)

    def counts(self, distinct: Scores) -> tuple[Counts, Counts]:
        _add_up(self._table)
        below, upto = np.empty(distinct.size, dtype=np.int64), np.empty(distinct.size, dtype=np.int64)
        for start in range(0, distinct.size, AT_ONCE):
            here = slice(start, start + AT_ONCE)
            places = self._places(distinct[here])
            below[here], upto[here] = self._table[places - 1], self._table[places]
        return below, upto


class _Binned:
    """Bins of equal width between two scores; a higher score is never in a lower bin."""

    def __init__(self, distinct: Scores, width: float, total: int) -> None:
        self._low = distinct[0]
        self._scale = np.float32((BINS - 2) / width)
        self._taken = np.zeros(BINS, dtype=np.bool_)
        for start in range(0, distinct.size, AT_ONCE):
            self._taken[self.place(distinct[start : start + AT_ONCE])] = True
        self._table = _empty_table(BINS, total)
        self._close = _Sorted()

    def place(self, scores: Scores) -> NDArray[np.int32]:
        """Return each score's bin; all below the lowest are in bin 0 or 1, all above the highest in the last."""
        with np.errstate(over="ignore"):  # an infinite place is an end
            places = (scores - self._low) * self._scale
        places += np.float32(1)
        return np.clip(places, 0, BINS - 1, out=places).astype(np.int32)

    def add(self, scores: Scores) -> None:
        places = self.place(scores)
        self._close.add(scores[self._taken[places]])
        np.add.at(self._table, places, self._table.dtype.type(1))

    def join(self, other: _Tally) -> None:
        assert isinstance(other, _Binned)
        np.add(self._table, other._table, out=self._table)
        self._close.join(other._close)

    def counts(self, distinct: Scores) -> tuple[Counts, Counts]:
        self._table[self._taken] = 0
        _add_up(self._table)
        below, upto = self._close.counts(distinct)
        for start in range(0, distinct.size, AT_ONCE):
            here = slice(start, start + AT_ONCE)
            outside = self._table[self.place(distinct[here])].astype(np.int64)
            below[here] += outside
            upto[here] += outside
        return below, upto


def _ends(ascending: Scores, distinct: Scores) -> tuple[Counts, Counts]:
    """Return how many of the ascending scores lie below each of the others, and up to it."""
    below = np.searchsorted(ascending, distinct, "left")
    upto = below.copy()
    # Most of the others are there once or not at all: only those that are there twice are looked up again.
    once = np.flatnonzero(below < ascending.size)
    once = once[ascending[below[once]] == distinct[once]]
    upto[once] += 1
    twice = once[upto[once] < ascending.size]
    twice = twice[ascending[upto[twice]] == distinct[twice]]
    upto[twice] = np.searchsorted(ascending, distinct[twice], "right")
    return below, upto


def _empty_table(places: int, total: int) -> Table:
    """Return zeros for `places` counts that add up to `total` at most: small numbers where these are enough."""
    return np.zeros(places, dtype=np.uint32) if total < 1 << 32 else np.zeros(places, dtype=np.int64)


def _add_up(table: Table) -> None:
    """Make each place the sum of all up to it, in place."""
    for start in range(0, table.size, AT_ONCE):
        here = table[start : start + AT_ONCE]
        if start:
            here[0] += table[start - 1]
        here[:] = np.cumsum(here, dtype=table.dtype)


def threads() -> int:
    """Return how many threads to use: OMP_NUM_THREADS where it is set, else one a processor, four at most."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(told) if told.isdecimal() and int(told) else os.cpu_count() or 1, MOST_THREADS)


def in_threads(work: Callable[[_In], _Found], parts: Sequence[_In]) -> list[_Found]:
    """Return what `work` makes of each part, at the same time; numpy lets go of the interpreter where it counts."""
    if len(parts) == 1:
        return [work(parts[0])]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, parts))


def _shares(parts: Sequence[_In], count: int) -> list[Sequence[_In]]:
    """Part a sequence into at most `count` runs of about one length, one at least."""
    count = max(1, min(count, len(parts)))
    edges = [len(parts) * number // count for number in range(count + 1)]
    return [parts[begin:end] for begin, end in pairwise(edges)]
