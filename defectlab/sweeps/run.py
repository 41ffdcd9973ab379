"""`sweep`: plan, run, resume, table."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from defectlab import paths
from defectlab.errors import InputError, OptionError
from defectlab.features.store import FeatureStore
from defectlab.files import replacing
from defectlab.logs import show_log
from defectlab.results.record import Run
from defectlab.results.workbook import update_workbook
from defectlab.sweeps.config import SweepConfig, with_overrides
from defectlab.sweeps.configurations import Configuration, earlier_runs, prepare
from defectlab.sweeps.execute import outcome_of
from defectlab.sweeps.executors import make_executor
from defectlab.sweeps.live import Live
from defectlab.sweeps.plan import Plan, make_plan
from defectlab.sweeps.table import Outcome, best_first, mean_rows, print_table, write_csv
from defectlab.sweeps.trials import Trial

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        plan: What was computed.
        outcomes: One for each configuration, in the order of the sweep; none where only the plan was asked for.
        folder: `results/sweeps/<name>/`, with `sweep.yaml` and `table.csv`; of a search `trials.csv` too.
        trials: Of a search: what was drawn, and what its validation images say of it.
    """

    plan: Plan
    outcomes: Sequence[Outcome]
    folder: Path
    trials: Sequence[Trial] = ()

    @property
    def runs(self) -> list[Run]:
        """The finished runs, in the order of the sweep."""
        return [Run.open(one.record) for one in self.outcomes if one.has_metrics and one.record]

    @property
    def failed(self) -> list[Outcome]:
        """What failed or cannot work; not what a search has pruned."""
        return [one for one in self.outcomes if not one.has_metrics and one.status != "pruned"]

    def best(self, metric: str = "image_AUROC") -> Outcome:
        """Return the configuration with the highest test metric: a look at the test images that picks on them.

        Raises:
            InputError: Nothing is finished.
        """
        ranked = best_first(self.outcomes, metric)
        if not ranked:
            raise InputError("No configuration is finished.")
        return ranked[0]


def sweep(
    config: str | Path | Mapping[str, Any] | SweepConfig,
    *,
    overrides: Mapping[str, Any] | None = None,
    plan_only: bool = False,
    retry_failed: bool = False,
    executor: str = "local",
    address: str | None = None,
) -> SweepResult:
    """Run every configuration of a sweep, sharing the work they have in common, and return what they came to.

    Each ends with a record, scores and a row in the workbook as if it had been trained alone. Finished ones are not
    done again, so that a killed sweep goes on where it was when it is called again; one that fails keeps its error in
    its record and stops no other. The plan is printed first; in a notebook a table shows the state meanwhile.

    Args:
        config: A YAML file, the same as a mapping, or a `SweepConfig`.
        overrides: Options by dotted name that win over it, such as `{"model.num_neighbors": [1, 9]}`.
        plan_only: Stop after the plan.
        retry_failed: Run configurations that failed earlier again.
        executor: local, in this process, or ray, in tasks on a cluster.
        address: The Ray cluster's; None starts one on this machine.

    Raises:
        InputError: A sweep that cannot work, before anything is computed.
    """
    show_log()
    settings = _read(config, overrides)
    if settings.search is not None:
        from defectlab.sweeps.search_sweep import search_sweep

        options: dict[str, Any] = {"plan_only": plan_only, "retry_failed": retry_failed}
        return search_sweep(settings, **options, executor=executor, address=address)
    configurations, refused = prepare(settings.expanded())
    store = FeatureStore(limit_gb=settings.cache_gb)
    runner = make_executor(executor, store, settings.name, address, settings.ray)
    plan = make_plan(configurations, refused, earlier_runs(configurations), store, retry_failed=retry_failed)
    plan.print()
    folder = paths.results_dir() / "sweeps" / settings.name
    if plan_only:
        return SweepResult(plan, [], folder)
    write_settings(folder, settings)
    live = Live(len(configurations), _known(plan))
    try:
        runner.run(plan.configurations, plan.pending, live.report)
    finally:
        runner.close()
        outcomes = conclude(folder, settings, live)
    return SweepResult(plan, outcomes, folder)


def conclude(folder: Path, settings: SweepConfig, live: Live) -> list[Outcome]:
    """Write a sweep's tables as far as it came, show them, and return its outcomes in the order of their numbers."""
    outcomes = sorted(live.outcomes, key=lambda one: one.number)
    means = mean_rows(outcomes, settings.named_groups())
    write_csv(folder / "table.csv", outcomes, means)
    update_workbook()
    live.close()
    print_table(outcomes, means)
    logger.info("Table: %s; workbook: %s", paths.relative(folder / "table.csv"), paths.workbook().name)
    return outcomes


def _read(config: Any, overrides: Mapping[str, Any] | None) -> SweepConfig:
    if isinstance(config, SweepConfig):
        if overrides:
            raise OptionError("sweep: overrides go with a file or a mapping, not with a SweepConfig.")
        return config
    if isinstance(config, Mapping):
        return SweepConfig.from_dict(with_overrides(config, overrides or {}))
    return SweepConfig.from_yaml(config, overrides)


def _known(plan: Plan) -> list[Outcome]:
    """Return what is known before anything runs: finished earlier, failed earlier, cannot work."""
    pending = {one.run_id for one in plan.pending}
    known = [_earlier(one, plan.earlier[one.run_id]) for one in plan.configurations if one.run_id not in pending]
    for refused in plan.refused:
        data = refused.data["data"]
        dataset = str(data.get("name") or Path(str(data.get("root"))).name)
        seed = int(refused.data["seed"])
        known.append(Outcome(refused.number, refused.label, dataset, seed, "refused", error=refused.error))
    return known


def _earlier(one: Configuration, run: Run) -> Outcome:
    if run.status == "finished":
        return outcome_of(one, "kept", run)
    return outcome_of(one, "failed", run, error=(run.record["error"] or {}).get("summary"))


def write_settings(folder: Path, settings: SweepConfig) -> None:
    """Keep what was asked for beside the table."""
    data: dict[str, Any] = {
        "name": settings.name,
        "base": settings.base,
        "seeds": list(settings.seeds),
        **({"search": asdict(settings.search)} if settings.search else {"experiments": list(settings.expanded())}),
    }
    with replacing(folder / "sweep.yaml") as partial:
        partial.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
