"""The function `sweep`, which plans, runs and resumes a sweep and writes its tables."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.sweeps.checkpoints import checkpoint_policy, parse_refit, retain_checkpoints
from defectlab.sweeps.config import SweepConfig, with_overrides
from defectlab.sweeps.configurations import earlier_runs, prepare
from defectlab.sweeps.execute import earlier_outcome, refused_outcome
from defectlab.sweeps.executors import make_executor
from defectlab.sweeps.k_shots import fit_few_of_each, refuse_in_search
from defectlab.sweeps.plan import Plan, make_plan
from defectlab.sweeps.result import SweepResult, conclude, runs_of_outcomes, write_settings
from defectlab.sweeps.shared_work import SharedWork
from defectlab.sweeps.table import LiveTable, Outcome
from defectlab.utils import paths
from defectlab.utils.files import is_writable
from defectlab.utils.logs import show_log
from defectlab.visualization.k_shots import print_k_shots
from defectlab_runtime.errors import InputError, OptionError

logger = logging.getLogger(__name__)


def sweep(
    config: str | Path | Mapping[str, Any] | SweepConfig,
    *,
    overrides: Mapping[str, Any] | None = None,
    plan_only: bool = False,
    retry_failed: bool = False,
    refit: Sequence[str] = (),
    executor: str = "local",
    address: str | None = None,
) -> SweepResult:
    """Run every configuration of a sweep, with common work done once, and return the result.

    Each ends with a record, scores and a row in the workbook as if it had been trained alone. Finished ones are not
    done again, so that a killed sweep goes on where it was when it is called again; one that fails keeps its error in
    its record and stops no other. The plan is printed first; in a notebook a table shows the state meanwhile.

    Args:
        config: A YAML file, the same as a mapping, or a `SweepConfig`.
        overrides: Options by dotted name that win over it, such as `{"model.num_neighbors": [1, 9]}`.
        plan_only: Stop after the plan.
        retry_failed: Run configurations that failed earlier again.
        refit: Whose checkpoints to make beside those that `checkpoints` keeps: `BEST` by image_AUROC of the validation
            images, `BEST:METRIC`, or configurations by number, name or run folder. Without a labelled validation image
            BEST is chosen on the test images, which log and record then say.
        executor: local, in this process, or ray, in tasks on a cluster.
        address: The Ray cluster's; None starts one on this machine.

    Raises:
        InputError: A sweep that cannot work, before anything is computed.
    """
    show_log()
    refit = [refit] if isinstance(refit, str) else refit
    settings = _read(config, overrides)
    if settings.search is not None:
        from defectlab.sweeps.search import require_optuna

        require_optuna()
        refuse_in_search(settings)
        from defectlab.sweeps.search.search_sweep import search_sweep

        options: dict[str, Any] = {"plan_only": plan_only, "retry_failed": retry_failed, "refit": refit}
        return search_sweep(settings, **options, executor=executor, address=address)
    configurations, refused = prepare(settings.expanded())
    store = FeatureStore(limit_gb=settings.cache_gb, dtype=settings.cache_dtype)
    runner = make_executor(executor, store, settings.name, address, settings.ray)
    earlier = earlier_runs(configurations, store.dtype)
    request = parse_refit(refit, configurations, earlier)
    policy = checkpoint_policy(settings.checkpoints, configurations)
    plan = make_plan(configurations, refused, earlier, store, retry_failed=retry_failed, checkpoints=policy)
    plan.print()
    folder = paths.results_dir() / "sweeps" / settings.name
    if plan_only:
        return SweepResult(plan, [], folder)
    if plan.extracts and executor == "local" and not is_writable(store.root):
        raise InputError(f"The cache {store.root} cannot be written to. DEFECTLAB_CACHE puts it elsewhere.")
    write_settings(folder, settings)
    live = LiveTable(len(configurations), _known_outcomes(plan))
    try:
        runner.run(plan.configurations, plan.pending, live.report)
        _note_groups(settings, live.outcomes)
        runs, shared = runs_of_outcomes(live.outcomes), SharedWork(configurations, store)
        problems = fit_few_of_each(configurations, runs, store)
        retained = retain_checkpoints(policy, request, configurations, runs, shared, settings.name)
    finally:
        runner.close()
        outcomes = conclude(folder, settings, live)
    print_k_shots(runs_of_outcomes(outcomes).values())
    return SweepResult(plan, outcomes, folder, checkpoints=retained, problems=problems)


def _note_groups(settings: SweepConfig, outcomes: Sequence[Outcome]) -> None:
    """Record the sweep's named groups of datasets in its runs; the workbook has means over the groups."""
    if not settings.groups:
        return
    for run in runs_of_outcomes(outcomes).values():
        dataset = run.record.dataset.name
        groups = [name for name, members in settings.groups.items() if dataset in members]
        if groups != run.record.sweep_facts.groups:
            run.update(sweep=run.record.sweep_facts.replaced(groups=groups))


def _read(config: Any, overrides: Mapping[str, Any] | None) -> SweepConfig:
    if isinstance(config, SweepConfig):
        if overrides:
            raise OptionError("sweep: overrides go with a file or a mapping, not with a SweepConfig.")
        return config
    if isinstance(config, Mapping):
        return SweepConfig.from_dict(with_overrides(config, overrides or {}))
    return SweepConfig.from_yaml(config, overrides)


def _known_outcomes(plan: Plan) -> list[Outcome]:
    """Return the outcomes known before anything runs: finished earlier, failed earlier, or refused."""
    pending = {one.run_id for one in plan.pending}
    _warn_of_other_masks(plan)
    known = [earlier_outcome(one, plan.earlier[one.run_id]) for one in plan.configurations if one.run_id not in pending]
    return known + [refused_outcome(refused) for refused in plan.refused]


def _warn_of_other_masks(plan: Plan) -> None:
    """Warn where runs of before reduced their masks otherwise than those to come: pixel metrics are not comparable."""
    other = [
        run
        for one in plan.configurations
        if (run := plan.earlier.get(one.run_id)) is not None
        and run.record.dataset.has_masks
        and run.record.evaluation.mask_reduction != one.datamodule.settings.mask_reduction
    ]
    if other and plan.pending:
        logger.warning(
            "%d runs of this sweep reduced their masks otherwise, by the nearest pixel as before: their pixel metrics "
            "do not compare with those of the %d to come. For one table of pixel metrics run all of them again, with "
            "another results folder.",
            len(other), len(plan.pending),
        )  # fmt: skip
