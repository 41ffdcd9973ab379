"""A sweep whose configurations a search draws: what `sweep` does for a file with a section `search`."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.results.run.run import Run
from defectlab.sweeps.checkpoints import Kept, keep_checkpoints
from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.executors import make_executor
from defectlab.sweeps.plan import Plan
from defectlab.sweeps.refit import BEST, configurations_of, wanted_of
from defectlab.sweeps.result import SweepResult, Trial, conclude, finished_runs, write_settings
from defectlab.sweeps.search.runner import Search, describe, plan_of, run_search, study_of
from defectlab.sweeps.search.trials import RandomStudy, print_trials, ranked
from defectlab.sweeps.shared_work import SharedWork
from defectlab.sweeps.table import Live
from defectlab.utils import paths
from defectlab.utils.errors import OptionError

logger = logging.getLogger(__name__)


def search_sweep(
    settings: SweepConfig,
    *,
    plan_only: bool = False,
    retry_failed: bool = False,
    refit: Sequence[str] = (),
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
    store = FeatureStore(limit_gb=settings.cache_gb, dtype=settings.cache_dtype)
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
        kept = Kept()
        try:
            run_search(search, folder, live.report, study, lambda now: trials.__setitem__(slice(None), now))
            kept = keep_of_search(settings, refit, finished_runs(live.outcomes), store)
        finally:
            search.executor.close()
            outcomes = conclude(folder, settings, live)
    print_trials(trials, config.objective, config.maximizes)
    best = ranked(trials, config.maximizes)
    if best:
        logger.info("Best trial %d: %s; all of them: %s", best[0].number, _records(best[0]), folder / "trials.csv")
    return SweepResult(Plan((), search.refused, {}, ()), outcomes, folder, tuple(trials), kept)


def keep_of_search(settings: SweepConfig, refit: Sequence[str], runs: Mapping[str, Run], store: FeatureStore) -> Kept:
    """Make the checkpoints of a finished search: unless it says otherwise, of the best by its own objective."""
    assert settings.search is not None
    if not runs or (settings.checkpoints == "none" and not refit):
        return Kept()
    configurations = configurations_of(runs.values())
    asked = [f"{BEST}:{settings.search.objective}" if text == BEST else text for text in refit]
    wanted = wanted_of(asked, configurations, runs)
    policy = settings.checkpoints or "best"
    shared = SharedWork(configurations, store)
    return keep_checkpoints(
        policy, wanted, configurations, runs, shared, settings.name, objective=settings.search.objective
    )


def _kept(told: list[Trial]) -> list[Any]:
    outcomes = [outcome for trial in told for outcome in trial.outcomes]
    for outcome in outcomes:
        outcome.status = "kept" if outcome.has_metrics else outcome.status
    return outcomes


def _records(trial: Trial) -> str:
    return ", ".join(outcome.record for outcome in trial.outcomes if outcome.record)
