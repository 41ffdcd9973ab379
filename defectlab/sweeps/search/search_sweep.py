"""A sweep whose configurations are drawn by a search: `sweep` calls it for settings with a section `search`."""

import logging
from collections.abc import Mapping, Sequence

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.results.run.run import Run
from defectlab.sweeps.checkpoints import BEST, RetainedCheckpoints, parse_refit, retain_checkpoints
from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.configurations import RunIndex
from defectlab.sweeps.executors import make_executor
from defectlab.sweeps.plan import Plan, make_plan
from defectlab.sweeps.refit import configurations_of
from defectlab.sweeps.result import SweepResult, Trial, conclude, runs_of_outcomes, write_settings
from defectlab.sweeps.search.runner import SearchRunner, run_search
from defectlab.sweeps.search.study import SearchStudy, open_study
from defectlab.sweeps.search.trials import print_trials, ranked
from defectlab.sweeps.search_space import space_size
from defectlab.sweeps.shared_work import SharedWork
from defectlab.sweeps.table import LiveTable, Outcome
from defectlab.utils import paths
from defectlab.utils.table import print_line
from defectlab_runtime.errors import InputError, OptionError

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
    """Run a search; see `sweep`. Called again, it resumes where it stopped, or continues up to a larger `trials`.

    Raises:
        InputError: A search that cannot work, before anything is computed.
    """
    assert settings.search is not None
    config = settings.search
    if config.pruning is not None and executor != "local":
        raise OptionError("search: pruning watches trainings in this process: leave executor at local.")
    store = FeatureStore(limit_gb=settings.cache_gb, dtype=settings.cache_dtype)
    folder = paths.results_dir() / "sweeps" / settings.name
    runner = make_executor(executor, store, settings.name, address, settings.ray)
    search = SearchRunner(settings, config, runner, RunIndex(store.dtype), retry_failed)
    n_images = search.check()
    with open_study(folder, config, settings.grid, search.identity, search.weights, retry_failed) as study:
        completed = study.completed_trials()
        print_line(_description(settings, n_images, len(completed)))
        plan = Plan((), (), {}, ())
        if config.strategy == "random":  # its trials are known before it starts
            plan = _plan(search, store)
            plan.print()
        if plan_only:
            return SweepResult(plan, [], folder)
        write_settings(folder, settings)
        live = LiveTable(config.trials * search.runs_per_trial, _earlier_outcomes(completed))
        try:
            trials = run_search(search, folder, live.report, study)
            retained = _retain(settings, refit, runs_of_outcomes(live.outcomes), store)
        finally:
            runner.close()
            outcomes = conclude(folder, settings, live)
    print_trials(trials, config.objective, config.maximizes)
    best = ranked(trials, config.maximizes)
    if best:
        records = ", ".join(outcome.record for outcome in best[0].outcomes if outcome.record)
        logger.info("Best trial %d: %s; all of them: %s", best[0].number, records, folder / "trials.csv")
    return SweepResult(Plan((), search.refused, {}, ()), outcomes, folder, tuple(trials), retained)


def _description(settings: SweepConfig, n_images: int, n_completed: int) -> str:
    """Return a one-line description of a search that is judged by `n_images` validation images."""
    config, size = settings.search, space_size(settings.grid)
    assert config is not None
    return (
        f"Search ({config.strategy}, seed {config.seed}): {config.trials} trials, {n_completed} on record, of "
        f"{'endlessly many' if size is None else size} combinations in {len(settings.grid)} parts; "
        f"{'highest' if config.maximizes else 'lowest'} {config.objective} on {n_images} validation images"
        + (f"; pruned by the median after {config.pruning['startup_trials']} trials" if config.pruning else "")
    )


def _plan(search: SearchRunner, store: FeatureStore) -> Plan:
    """Return the plan of a random search.

    Raises:
        InputError: No trial can run.
    """
    built, configurations, _ = search.build(SearchStudy(search.config, search.settings.grid).ask())
    refused = [refused for one in built for refused in one.refused]
    if not configurations:
        raise InputError(refused[0].error if refused else "The search has no trial.")
    earlier = search.records.runs_of(configurations)
    return make_plan(configurations, refused, earlier, store, retry_failed=search.retry_failed)


def _retain(
    settings: SweepConfig, refit: Sequence[str], runs: Mapping[str, Run], store: FeatureStore
) -> RetainedCheckpoints:
    """Make the checkpoints of a finished search: by default that of the best run of each dataset by its objective."""
    assert settings.search is not None
    if not runs or (settings.checkpoints == "none" and not refit):
        return RetainedCheckpoints()
    objective = settings.search.objective
    configurations = configurations_of(runs.values())
    asked = [f"{BEST}:{objective}" if text == BEST else text for text in refit]
    return retain_checkpoints(
        settings.checkpoints or "best",
        parse_refit(asked, configurations, runs),
        configurations,
        runs,
        SharedWork(configurations, store),
        settings.name,
        objective=objective,
    )


def _earlier_outcomes(trials: Sequence[Trial]) -> list[Outcome]:
    """Return the outcomes of trials that an earlier call has completed; those with metrics get status `kept`."""
    outcomes = [outcome for trial in trials for outcome in trial.outcomes]
    for outcome in outcomes:
        outcome.status = "kept" if outcome.has_metrics else outcome.status
    return outcomes
