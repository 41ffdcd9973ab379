"""How many scores lie below each of many others, exactly, without sorting them all.

Scores are put into about two million bins between the lowest and the highest of the others, in their order. Only those
that share a bin with one of the others can lie on either side of it: these few are sorted, the rest is counted.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

BINS = 1 << 21
FEW = 1 << 18  # scores that are sorted at once
AT_ONCE = 1 << 21  # scores binned, and others looked up, at one time: bounds the memory
MOST_THREADS = 4  # each holds about 45 MB of bins

Counts = NDArray[np.int64]
Scores = NDArray[np.float32]
_Found = TypeVar("_Found")


def add_counts(scores: Scores, distinct: Scores, below: Counts, upto: Counts) -> None:
    """Add to `below` (k,) how many scores lie below each distinct one, and to `upto` (k,) how many up to it.

    Args:
        scores: (n,) in any order, without NaN; few of them may be sorted in place.
        distinct: (k,) ascending, each once.
        below: Added to.
        upto: Added to.
    """
    bins = _Bins.of(distinct) if scores.size > FEW and distinct.size else None
    if bins is None:
        scores.sort()
        _add(scores, distinct, below, upto)
        return
    parts = np.array_split(scores, max(1, min(threads(), scores.size // FEW)))
    found = in_threads(bins.part, parts)
    lower = np.cumsum(sum(counts for counts, _ in found))
    close = np.concatenate([one for _, one in found])
    close.sort()
    for start in range(0, distinct.size, AT_ONCE):
        here = slice(start, start + AT_ONCE)
        outside = lower[bins.place(distinct[here])]
        below[here] += outside
        upto[here] += outside
    _add(close, distinct, below, upto)


def _add(ascending: Scores, distinct: Scores, below: Counts, upto: Counts) -> None:
    for start in range(0, distinct.size, AT_ONCE):
        here = slice(start, start + AT_ONCE)
        below[here] += np.searchsorted(ascending, distinct[here], "left")
        upto[here] += np.searchsorted(ascending, distinct[here], "right")


class _Bins:
    """Bins of equal width between two scores; a higher score is never in a lower bin."""

    def __init__(self, low: np.float32, scale: np.float32, distinct: Scores) -> None:
        self._low = low
        self._scale = scale
        self._taken = np.zeros(BINS, dtype=np.bool_)
        for start in range(0, distinct.size, AT_ONCE):
            self._taken[self.place(distinct[start : start + AT_ONCE])] = True

    @classmethod
    def of(cls, distinct: Scores) -> "_Bins | None":
        """Return the bins between the first and the last; None where no finite width parts them."""
        width = float(distinct[-1]) - float(distinct[0])
        if not 1e-30 < width < 1e30:
            return None
        return cls(distinct[0], np.float32((BINS - 2) / width), distinct)

    def place(self, scores: Scores) -> NDArray[np.int32]:
        """Return each score's bin; all below the lowest are in bin 0 or 1, all above the highest in the last."""
        with np.errstate(over="ignore"):  # an infinite place is an end
            places = (scores - self._low) * self._scale
        places += np.float32(1)
        return np.clip(places, 0, BINS - 1, out=places).astype(np.int32)

    def part(self, scores: Scores) -> tuple[Counts, Scores]:
        """Return how many scores are in each bin (BINS,) that none of the others is in, and the scores elsewhere."""
        counts, close = np.zeros(BINS, dtype=np.int64), [np.empty(0, dtype=np.float32)]
        for start in range(0, scores.size, AT_ONCE):
            some = scores[start : start + AT_ONCE]
            places = self.place(some)
            close.append(some[self._taken[places]])
            counts += np.bincount(places, minlength=BINS)
        counts[self._taken] = 0
        return counts, np.concatenate(close)


def threads() -> int:
    """Return how many threads to use: OMP_NUM_THREADS where it is set, else one a processor, eight at most."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(told) if told.isdecimal() and int(told) else os.cpu_count() or 1, MOST_THREADS)


def in_threads(work: Callable[[Scores], _Found], parts: Sequence[Scores]) -> list[_Found]:
    """Return what `work` makes of each part, at the same time; numpy lets go of the interpreter where it counts."""
    if len(parts) == 1:
        return [work(parts[0])]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, parts))
