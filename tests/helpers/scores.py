"""Scores drawn from known distributions."""

import numpy as np


def draw(random: np.random.Generator, bad: int, good: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels (bad + good,) of two normal distributions that lie `shift` deviations apart."""
    return np.concatenate([random.normal(shift, 1, bad), random.normal(0, 1, good)]), np.repeat([1, 0], [bad, good])


def photographs(random: np.random.Generator, bad: int, good: int, views: int, shift: float, within: float):
    """Scores, labels and groups of `views` images a part, which share all of their variance but `within`."""
    part = np.repeat(random.normal(0, 1, bad + good), views)
    labels = np.repeat([1, 0], [bad * views, good * views])
    own = random.normal(0, 1, labels.size)
    scores = labels * shift + np.sqrt(1 - within) * part + np.sqrt(within) * own
    return scores, labels, np.repeat(np.arange(bad + good), views)
