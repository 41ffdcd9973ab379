"""Fits with a few training images (`data.k_shots`) of each run of a sweep, on the features that it has extracted."""

from collections.abc import Iterable, Mapping
from functools import partial

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.results.run.run import Run
from defectlab.sweeps.attempt import attempt
from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.configurations import Configuration
from defectlab_runtime.errors import OptionError


def refuse_in_search(config: SweepConfig) -> None:
    """Check that a search asks for no fits with a few images, which would be made for each of its trials.

    Raises:
        OptionError: It does.
    """
    if config.base.get("data", {}).get("k_shots") or any("data.k_shots" in branch for branch in config.grid):
        raise OptionError(
            "A search makes no k_shots, of which each trial would have its own: leave data.k_shots out, and train its "
            "best configuration with it."
        )


def fit_few_of_each(configurations: Iterable[Configuration], runs: Mapping[str, Run], store: FeatureStore) -> list[str]:
    """Make the fits that finished runs lack, and return what went wrong: one that fails stops no other.

    `runs` are by run id. Features come from the sweep's store.
    """
    problems = []
    for one in configurations:
        if one.run_id in runs:
            one.engine.feature_store = store
            tried = attempt(f"k_shots of {one.label}", partial(_fit_few, one, runs[one.run_id]), expected=())
            problems += [f"{one.label}: {tried.summary}"] if tried.error is not None else []
    return problems


def _fit_few(one: Configuration, run: Run) -> Run:
    one.engine.fit_few(one.model, one.datamodule, run)
    return run
