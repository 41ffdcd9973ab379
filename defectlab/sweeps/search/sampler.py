"""Drawing the trials of a search: Optuna's samplers, seeded so that a search can be stopped and resumed."""

import hashlib
import json
import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from defectlab.sweeps.search_config import SearchConfig
from defectlab.sweeps.search_space import Choices, Interval, Options, Space, subspace_names

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


class RandomSampler(optuna.samplers.RandomSampler):
    """Sampler with uniform draws that depend only on the seed and the trial.

    Optuna's own draws would do for new searches. Those begun before Optuna drew for them keep no ledger, and go on only
    because these draws are the same: one generator for each trial, asked for its options in their order.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[int, np.random.Generator] = {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one value of one option from a distribution, by the seed and the trial's number."""
        generator = self._generators.setdefault(trial.number, np.random.default_rng([self._seed, trial.number]))
        given: Any = param_distribution
        if isinstance(given, CategoricalDistribution):
            return given.choices[int(generator.integers(len(given.choices)))]
        if given.step is not None and not given.log:
            return given.low + given.step * int(generator.integers(round((given.high - given.low) / given.step) + 1))
        if given.log:
            value = math.exp(generator.uniform(math.log(given.low), math.log(given.high)))
        else:
            value = generator.uniform(given.low, given.high)
        whole = round(value) if isinstance(given, IntDistribution) else value
        return min(max(whole, given.low), given.high)


def make_sampler(config: SearchConfig) -> optuna.samplers.BaseSampler:
    """Return the sampler of a search's strategy."""
    return TPESampler(config.seed) if config.strategy == "optuna" else RandomSampler(config.seed)


def sample(space: Space, trial: optuna.Trial) -> dict[str, Any]:
    """Draw one combination of options from one subspace; an option that the trial already has keeps its value."""
    names = subspace_names(space)
    name = _suggest(trial, "part", Choices(tuple(names))) if len(names) > 1 else names[0]
    subspace = space[names.index(name)]
    return {option: _suggest(trial, f"{name}: {option}", options) for option, options in subspace.items()}


def _suggest(trial: optuna.Trial, name: str, options: Options) -> Any:
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


def rounded(value: float, options: Interval) -> float:
    """Return a drawn number rounded to `SIGNIFICANT_DIGITS` digits and clipped to the interval.

    >>> rounded(0.0123456, Interval(0.001, 0.1))
    0.01235
    """
    return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), options.low), options.high)
