"""Ranks of scores. They are computed here because scipy.stats alone takes longer to import than a record to read."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def average_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Return ranks from 1 to n along the last axis of (..., n); equal values share the mean of their ranks.

    A line with a NaN has no order: all its ranks are NaN.

    >>> average_ranks([0.5, 0.1, 0.5]).tolist()
    [2.5, 1.0, 2.5]
    """
    numbers = np.asarray(values)
    order = np.argsort(numbers, axis=-1, kind="stable")
    ordered = np.take_along_axis(numbers, order, axis=-1)
    changes = ordered[..., 1:] != ordered[..., :-1]  # (..., n - 1): between neighbours
    edge = np.ones((*numbers.shape[:-1], 1), dtype=np.bool_)
    places = np.arange(numbers.shape[-1])
    begins = np.concatenate([edge, changes], axis=-1)[..., : places.size]
    ends = np.concatenate([changes, edge], axis=-1)[..., : places.size]
    first = np.maximum.accumulate(np.where(begins, places, 0), axis=-1)
    last = np.minimum.accumulate(np.where(ends, places, places.size)[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty(numbers.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=-1)
    return np.where(np.isnan(numbers).any(axis=-1, keepdims=True), np.nan, ranks)
