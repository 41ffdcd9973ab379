"""How often one of several equal models is called worse than the best, on the same images.

    python -m benchmarks.simulate_best                     # 40 test sets a row, some minutes on one thread
    python -m benchmarks.simulate_best --repeats 400

Models score each image by what is common to all (`correlation`) and noise of their own, or of three families of models
that are nearly alike. Beside the step-down test: DeLong's test of each against the best, corrected by Holm, as before.
"""

import argparse
from collections.abc import Mapping

import numpy as np
from scipy.special import ndtri

from defectlab.evaluation.metrics import auroc, sort_scores
from defectlab.evaluation.multiple_comparisons import compare_auroc
from defectlab.evaluation.paired_tests import delong_test

SETTINGS = [  # models, good images, anomalous images, AUROC, correlation, alike
    (10, 20, 20, 0.9, 0.5, False),
    (30, 20, 20, 0.9, 0.5, False),
    (10, 10, 23, 0.93, 0.7, False),
    (10, 60, 60, 0.98, 0.8, False),
    (10, 200, 200, 0.9, 0.5, False),
    (30, 200, 200, 0.9, 0.5, False),
    (10, 40, 40, 0.9, 0.5, True),
    (30, 40, 40, 0.9, 0.5, True),
]


def draw(random: np.random.Generator, models: int, good: int, bad: int, area: float, common: float, alike: bool):
    """Return scores (models, images) of equal models, and the labels."""
    labels = np.repeat([0, 1], [good, bad])
    own = random.normal(size=(models, labels.size))
    if alike:
        own = np.sqrt(0.9) * random.normal(size=(3, labels.size))[np.arange(models) % 3] + np.sqrt(0.1) * own
    scores = np.sqrt(common) * random.normal(size=labels.size) + np.sqrt(1 - common) * own
    return scores + ndtri(area) * np.sqrt(2) * labels, labels


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for multiple comparisons (Holm, 1979), keyed as the input.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    corrected: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}


def errors(setting: tuple, repeats: int, seed: int = 0) -> tuple[float, float]:
    """Return the shares of test sets on which any model is called worse: Holm's, and the step-down test's."""
    random, found = np.random.default_rng(seed), np.zeros(2)
    for _ in range(repeats):
        scores, labels = draw(random, *setting)
        areas = [auroc(sort_scores(its, labels)).value or 0.0 for its in scores]
        best = int(np.argmax(areas))
        against = {str(n): delong_test(scores[best], its, labels).p for n, its in enumerate(scores) if n != best}
        found[0] += min(holm(against).values()) < 0.05
        found[1] += compare_auroc([its[None] for its in scores], labels, np.arange(labels.size)).min() < 0.05
    before, now = found / repeats
    return float(before), float(now)


def main() -> None:
    """Print the shares as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| equal models | good + anomalous | AUROC | correlation | Holm against the best | step-down |")
    print("|--:|--:|--:|--:|--:|--:|")
    for setting in SETTINGS:
        models, good, bad, area, common, alike = setting
        before, now = errors(setting, arguments.repeats, arguments.seed)
        families = ", three families" * alike
        print(f"| {models} | {good} + {bad} | {area} | {common}{families} | {before:.3f} | {now:.3f} |", flush=True)


if __name__ == "__main__":
    main()
