"""Finished runs with given scores, without any training."""

import numpy as np
from finished import finished

from defectlab.results.comparison.significance import read_test_scores
from defectlab.results.run.record import Run
from defectlab.results.run.scores import ScoreRow


def scored(name: str, noise: float, seed: int = 0, count: int = 60, **options) -> Run:
    """A run whose scores are the truth and noise of this size."""
    run = finished(name, **options)
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], count // 2)
    scores = labels + random.normal(0, noise, count)
    rows = [ScoreRow(f"{n:03d}.png", "test", "", int(labels[n]), float(scores[n]), -1) for n in range(count)]
    run.write_scores(rows[::-1] if seed % 2 else rows)  # any order: images are matched by path
    return run


def measured(name: str, noise: float, seed: int = 0, **options) -> Run:
    """A run whose recorded AUROC is that of its scores."""
    run = scored(name, noise, seed, **options)
    found = read_test_scores(run)
    assert found is not None
    area = np.subtract.outer(found.scores[found.labels == 1], found.scores[found.labels == 0]) > 0
    run.update(metrics=run.record["metrics"] | {"image_AUROC": float(area.mean())})
    return run
