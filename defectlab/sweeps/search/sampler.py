"""Drawing the trials of a search, by Optuna's TPE or at random, so that a search can be stopped and resumed."""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from defectlab.sweeps.search_space import Choices, Interval, Options, Range, Space, subspace_names

SIGNIFICANT_DIGITS = 4  # of numbers drawn from an interval: they stand in names of runs


class TPESampler(optuna.samplers.TPESampler):
    """Optuna's TPE sampler; a draw depends only on the seed, the trial, the option and the completed trials."""

    def __init__(self, seed: int) -> None:
        super().__init__(multivariate=False)
        self._seed = seed

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one value of one option from a distribution, by the seed and the trial's number."""
        digest = hashlib.sha256(f"{self._seed} {trial.number} {param_name}".encode()).digest()
        seed = int(np.frombuffer(digest[:4], dtype=np.uint32)[0])
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


class RandomDraws:
    """Uniform draws that depend only on the seed and the trial: one generator a trial, asked for its options in order.

    Optuna's own would do for a new search, but it does not draw where only one value is left, and takes equal choices
    as one. A random search keeps no ledger: one that was begun goes on only because these draws stay the same.
    """

    def __init__(self, seed: int, trial: int) -> None:
        self._generator = np.random.default_rng([seed, trial])

    def __call__(self, _name: str, options: Options) -> Any:
        """Draw one value of one option."""
        if isinstance(options, Choices) or (isinstance(options, Range) and not options.log):
            return options.values[int(self._generator.integers(len(options.values)))]
        if options.log:
            value = math.exp(self._generator.uniform(math.log(options.low), math.log(options.high)))
        else:
            value = self._generator.uniform(options.low, options.high)
        return rounded(value, options)


def sample(space: Space, draw: Callable[[str, Options], Any]) -> dict[str, Any]:
    """Draw one combination of options from one subspace; `draw` gets the name and the values of each."""
    names = subspace_names(space)
    name = draw("part", Choices(tuple(names))) if len(names) > 1 else names[0]
    subspace = space[names.index(name)]
    return {option: draw(f"{name}: {option}", options) for option, options in subspace.items()}


def suggest(trial: optuna.Trial, name: str, options: Options) -> Any:
    """Let Optuna draw one value of one option; an option that the trial already has keeps its value."""
    if isinstance(options, Choices):
        texts = {json.dumps(value): value for value in options.values}
        return texts[trial.suggest_categorical(name, list(texts))]
    if isinstance(options, Interval):
        value = trial.suggest_float(name, options.low, options.high, log=options.log)
        return rounded(value, options)
    highest = options.values[-1]
    if options.whole:
        return trial.suggest_int(name, int(options.low), int(highest), step=int(options.step), log=options.log)
    value = trial.suggest_float(name, options.low, highest, step=options.step)
    return min(options.values, key=lambda other: abs(other - value))


def rounded(value: float, options: Range | Interval) -> float:
    """Return a drawn number clipped to its ends, and rounded: of a range to an integer, else to a few digits.

    >>> rounded(0.0123456, Interval(0.001, 0.1)), rounded(7.6, Range(1, 9, 1, log=True))
    (0.01235, 8)
    """
    if isinstance(options, Range):  # those drawn by their logarithm are of integers
        return min(max(round(value), round(options.low)), round(options.high))
    return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), options.low), options.high)
