"""A sweep whose configurations a search draws: what `sweep` does for a file with a section `search`."""

import logging
from typing import Any

from rich.console import Console

from defectlab import paths
from defectlab.errors import OptionError
from defectlab.features.store import FeatureStore
from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.executors import make_executor
from defectlab.sweeps.live import Live
from defectlab.sweeps.plan import Plan
from defectlab.sweeps.run import SweepResult, conclude, write_settings
from defectlab.sweeps.searching import Search, describe, plan_of, run_search, study_of
from defectlab.sweeps.trials import RandomStudy, Trial, print_trials, ranked

logger = logging.getLogger(__name__)


def search_sweep(
    settings: SweepConfig,
    *,
    plan_only: bool = False,
    retry_failed: bool = False,
    executor: str = "local",
    address: str | None = None,
) -> SweepResult:
    """Run a search; see `sweep`. Called again it goes on where it was, or further where `trials` has grown.

    Raises:
        InputError: A search that cannot work, before anything is computed.
    """
    assert settings.search is not None
    config = settings.search
    if config.pruning is not None and executor != "local":
        raise OptionError("search: pruning watches trainings in this process: leave executor at local.")
    store = FeatureStore(limit_gb=settings.cache_gb)
    folder = paths.results_dir() / "sweeps" / settings.name
    search = Search(
        settings, config, make_executor(executor, store, settings.name, address, settings.ray), store, retry_failed
    )
    judges = search.check()
    with study_of(search, folder) as study:
        told = study.told()
        Console().print(describe(search, judges, len(told)), soft_wrap=True)
        if isinstance(study, RandomStudy):
            plan = plan_of(search, RandomStudy(config, settings.grid))
            plan.print()
        if plan_only:
            return SweepResult(plan if isinstance(study, RandomStudy) else Plan((), (), {}, ()), [], folder)
        write_settings(folder, settings)
        live = Live(config.trials * search.per_trial, _kept(told))
        trials: list[Trial] = list(told)
        try:
            run_search(search, folder, live.report, study, lambda now: trials.__setitem__(slice(None), now))
        finally:
            search.executor.close()
            outcomes = conclude(folder, settings, live)
    print_trials(trials, config.objective, config.maximizes)
    best = ranked(trials, config.maximizes)
    if best:
        logger.info("Best trial %d: %s; all of them: %s", best[0].number, _records(best[0]), folder / "trials.csv")
    return SweepResult(Plan((), search.refused, {}, ()), outcomes, folder, tuple(trials))


def _kept(told: list[Trial]) -> list[Any]:
    outcomes = [outcome for trial in told for outcome in trial.outcomes]
    for outcome in outcomes:
        outcome.status = "kept" if outcome.has_metrics else outcome.status
    return outcomes


def _records(trial: Trial) -> str:
    return ", ".join(outcome.record for outcome in trial.outcomes if outcome.record)
