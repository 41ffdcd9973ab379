"""`sweep`: plan, run, resume, table."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from defectlab import paths
from defectlab.errors import InputError, OptionError
from defectlab.features.store import FeatureStore
from defectlab.files import is_writable, replacing
from defectlab.logs import show_log
from defectlab.results.record import Run
from defectlab.sweeps.checkpoints import Kept, keep_checkpoints, policy_of
from defectlab.sweeps.config import SweepConfig, with_overrides
from defectlab.sweeps.configurations import Configuration, earlier_runs, prepare
from defectlab.sweeps.execute import outcome_of
from defectlab.sweeps.executors import make_executor
from defectlab.sweeps.live import Live
from defectlab.sweeps.pieces import Pieces
from defectlab.sweeps.plan import Plan, make_plan
from defectlab.sweeps.refit import DEFAULT_METRIC, wanted_of
from defectlab.sweeps.table import Outcome, mean_rows, print_table, renew_workbook, write_csv
from defectlab.sweeps.trials import Trial
from defectlab.sweeps.validation import choose

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        plan: What was computed.
        outcomes: One for each configuration, in the order of the sweep; none where only the plan was asked for.
        folder: `results/sweeps/<name>/`, with `sweep.yaml` and `table.csv`; of a search `trials.csv` too.
        trials: Of a search: what was drawn, and what its validation images say of it.
        kept: The runs whose checkpoints were asked for, and what could not be made.
    """

    plan: Plan
    outcomes: Sequence[Outcome]
    folder: Path
    trials: Sequence[Trial] = ()
    kept: Kept = field(default_factory=Kept)

    @property
    def runs(self) -> list[Run]:
        """The finished runs, in the order of the sweep."""
        return [Run.open(one.record) for one in self.outcomes if one.has_metrics and one.record]

    @property
    def failed(self) -> list[Outcome]:
        """What failed or cannot work; not what a search has pruned, nor what another process is running."""
        return [one for one in self.outcomes if one.is_failure]

    def best(self, metric: str = DEFAULT_METRIC) -> Run:
        """Return the run with the best metric of the validation images; equal ones are told apart by their pixels.

        Raises:
            InputError: Nothing is finished, datasets are several, or there is no labelled validation image.
        """
        runs = self.runs
        if len({run.record["dataset"]["name"] for run in runs}) != 1:
            raise InputError("There is a best configuration of one dataset only: nothing is finished, or on several.")
        chosen = choose(runs, metric)
        if chosen is None:
            raise InputError(
                f"No validation image has {metric}: the best can be chosen on the test images only, which their "
                "metrics do not survive. table.csv has all of them."
            )
        return chosen.run


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
    """Run every configuration of a sweep, sharing the work they have in common, and return what they came to.

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
    settings = _read(config, overrides)
    if settings.search is not None:
        from defectlab.sweeps.search_sweep import search_sweep

        options: dict[str, Any] = {"plan_only": plan_only, "retry_failed": retry_failed, "refit": refit}
        return search_sweep(settings, **options, executor=executor, address=address)
    configurations, refused = prepare(settings.expanded())
    store = FeatureStore(limit_gb=settings.cache_gb, dtype=settings.cache_dtype)
    runner = make_executor(executor, store, settings.name, address, settings.ray)
    earlier = earlier_runs(configurations, store.dtype)
    wanted = wanted_of([refit] if isinstance(refit, str) else refit, configurations, earlier)
    policy = policy_of(settings.checkpoints, configurations)
    plan = make_plan(configurations, refused, earlier, store, retry_failed=retry_failed, checkpoints=policy)
    plan.print()
    folder = paths.results_dir() / "sweeps" / settings.name
    if plan_only:
        return SweepResult(plan, [], folder)
    if plan.extracts and executor == "local" and not is_writable(store.root):
        raise InputError(f"The cache {store.root} cannot be written to. DEFECTLAB_CACHE puts it elsewhere.")
    write_settings(folder, settings)
    live = Live(len(configurations), _known(plan))
    kept = Kept()
    try:
        runner.run(plan.configurations, plan.pending, live.report)
        _note_groups(settings, live.outcomes)
        pieces = Pieces(configurations, store)
        kept = keep_checkpoints(policy, wanted, configurations, finished_runs(live.outcomes), pieces, settings.name)
    finally:
        runner.close()
        outcomes = conclude(folder, settings, live)
    return SweepResult(plan, outcomes, folder, kept=kept)


def conclude(folder: Path, settings: SweepConfig, live: Live) -> list[Outcome]:
    """Write a sweep's tables as far as it came, show them, and return its outcomes in the order of their numbers."""
    outcomes = sorted(live.outcomes, key=lambda one: one.number)
    means = mean_rows(outcomes, settings.named_groups())
    table = folder / "table.csv"
    try:
        write_csv(table, outcomes, means)
    except OSError as error:  # open in Excel, or the disk is full
        logger.error("%s could not be written (%s); the records have all of it", table, error)
    renew_workbook()
    live.close()
    busy = sum(one.status == "busy" for one in outcomes)
    if busy:
        logger.info("%d being run by another process: call the sweep again when it is done", busy)
    print_table(outcomes, means)
    logger.info("Table: %s; workbook: %s", paths.relative(table), paths.workbook().name)
    return outcomes


def _note_groups(settings: SweepConfig, outcomes: Sequence[Outcome]) -> None:
    """Put the sweep's own groups of datasets on record: the workbook has means over them."""
    if not settings.groups:
        return
    for run in finished_runs(outcomes).values():
        dataset = run.record["dataset"]["name"]
        groups = [name for name, members in settings.groups.items() if dataset in members]
        sweep_facts = run.record.get("sweep") or {}
        if groups != sweep_facts.get("groups", []):
            run.update(sweep={**sweep_facts, "groups": groups})


def finished_runs(outcomes: Sequence[Outcome]) -> dict[str, Run]:
    """Return the finished runs by run id, in the order of the sweep."""
    ordered = sorted((one for one in outcomes if one.has_metrics and one.record), key=lambda one: one.number)
    runs = [Run.open(one.record or "") for one in ordered]
    return {run.record["run_id"]: run for run in runs}


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
        **({"loggers": settings.loggers} if settings.loggers else {}),
        **({"search": asdict(settings.search)} if settings.search else {"experiments": list(settings.expanded())}),
    }
    try:
        with replacing(folder / "sweep.yaml") as partial:
            partial.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The sweep's folder {folder} cannot be written to ({error}). DEFECTLAB_RESULTS puts results elsewhere."
        ) from error
