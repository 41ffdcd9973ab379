"""A search: trials are drawn, run as a sweep's configurations are, and judged by their validation images."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.experiment import ComponentCache, Experiment
from defectlab.models.registry import model_info
from defectlab.results.run.run import Run, find_runs
from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.configurations import Configuration, Refused, build_all, serves
from defectlab.sweeps.execute import Report, outcome_of
from defectlab.sweeps.executors import Executor
from defectlab.sweeps.plan import Plan, is_pending, make_plan
from defectlab.sweeps.result import COMPLETE, FAILED, PRUNED, Trial
from defectlab.sweeps.search.optuna_study import open_study
from defectlab.sweeps.search.sampler import space_size
from defectlab.sweeps.search.shared_ranges import set_prefix_values
from defectlab.sweeps.search.trials import RandomStudy, Study, write_trials
from defectlab.sweeps.search_config import SearchConfig
from defectlab.sweeps.search_space import Choices, Options, expand
from defectlab.sweeps.selection import check_objective, objective_value
from defectlab.sweeps.table import Outcome
from defectlab.utils.errors import InputError, OptionError

logger = logging.getLogger(__name__)


@dataclass
class Search:
    """A search under way; its trials share `components`, the executor's shared work and the records known."""

    settings: SweepConfig
    search: SearchConfig
    executor: Executor
    store: FeatureStore
    retry_failed: bool = False
    components: ComponentCache = field(default_factory=ComponentCache)
    refused: list[Refused] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)
    weights: list[str] = field(default_factory=list)
    _known: dict[Path, dict[str, Run]] = field(default_factory=dict)

    def check(self) -> int:
        """Refuse a search that cannot be judged, before anything is computed; returns how many images judge it.

        Raises:
            InputError: Says what is missing.
        """
        several = max(1, len(self.settings.roots())) * len(self.settings.seeds) > 1
        if self.search.pruning is not None and several:
            raise OptionError("search: pruning needs one dataset and one seed: a trial of several has no one training.")
        if self.search.objective.startswith("pixel"):
            own: Options = Choices((self.settings.base.get("trainer", {}).get("keep_maps", "all"),))
            if any(set(part.get("trainer.keep_maps", own).values) != {"all"} for part in self.settings.grid):
                raise OptionError(f"search: {self.search.objective} needs maps: leave trainer.keep_maps at all.")
        manifests = {}
        for branch in self.settings.grid:
            data = {name: options for name, options in branch.items() if name.startswith("data.")}
            name = branch.get("model.name", Choices((self.settings.base.get("model", {}).get("name"),))).values[0]
            for values in expand(data):
                for experiment in self.settings.completed({**values, "model.name": name}):
                    manifest = self.components.datamodule(Experiment.from_dict(experiment)).manifest
                    manifests[manifest.hash] = manifest
        check_objective(manifests.values(), self.search.objective)
        self.identity = {"base": self.settings.base, "seeds": self.settings.seeds, "images": sorted(manifests)}
        if self.settings.cache_dtype != "float32":  # left out where it is: studies from before stay the same
            self.identity["cache_dtype"] = self.settings.cache_dtype
        self.weights = sorted(self._weights())
        return sum(len(manifest.split("validation")) for manifest in manifests.values())

    def _weights(self) -> set[str]:
        """Return the hashes of all weights that trials can take: a file may hold others than when it was last read."""
        found = set()
        for branch in self.settings.grid:
            options = {name: value for name, value in branch.items() if name.startswith("backbone.")}
            options["model.name"] = branch.get(
                "model.name", Choices((self.settings.base.get("model", {}).get("name"),))
            )
            for values in expand(options):
                for experiment in self.settings.completed(values):
                    try:
                        backbone = self.components.backbone(Experiment.from_dict(experiment))
                    except InputError:  # its trials say so by themselves
                        continue
                    found |= {backbone.weights.sha256} if backbone is not None else set()
        return found

    @property
    def per_trial(self) -> int:
        """How many configurations a trial is: one for each dataset and seed."""
        return max(1, len(self.settings.roots())) * len(self.settings.seeds)

    def built(self, trials: Sequence[Trial]) -> list[tuple[Trial, list[Configuration], list[Refused]]]:
        """Build the configurations of trials."""
        found = []
        for trial in trials:
            experiments = list(self.settings.completed(trial.values))
            ready, refused = build_all(experiments, self.components, first=trial.number * self.per_trial + 1)
            found.append((trial, ready, refused))
        return found

    def earlier(self, configurations: Sequence[Configuration]) -> dict[str, Run]:
        """Return the runs on record of these experiments, by run id."""
        found = {}
        for one in configurations:
            folder = one.engine.results_folder
            if folder not in self._known:
                self._known[folder] = {}
                for run in find_runs(folder):
                    self._learn(folder, run)
            known = self._known[folder].get(one.run_id)
            if known is not None and serves(known, one, self.store.dtype):
                found[one.run_id] = known
        return found

    def _learn(self, folder: Path, run: Run) -> None:
        known = self._known[folder].get(run.record["run_id"])
        if known is None or known.status != "finished":
            self._known[folder][run.record["run_id"]] = run

    def round(self, trials: Sequence[Trial], report: Report) -> None:
        """Run trials together and set the state, value and outcomes of each; what is on record is not run again."""
        built = self.built(trials)
        configurations = [one for _, ready, _ in built for one in ready]
        unique = list({one.run_id: one for one in reversed(configurations)}.values())[::-1]
        bounds = set_prefix_values(
            self.settings.grid, [(t.values, one) for t, ready, _ in built for one in ready], self.components
        )
        earlier = self.earlier(unique)
        pending = [one for one in unique if self._is_pending(one, earlier)]
        if self.search.pruning is not None:
            self._watch(built, pending)
        ran: dict[str, Outcome] = {}

        def collect(outcome: Outcome) -> None:
            one = numbered[outcome.number]
            ran[one.run_id] = outcome
            if outcome.record:
                self._learn(one.engine.results_folder, Run.open(outcome.record))
            report(outcome)

        numbered = {one.number: one for one in pending}
        self.executor.run([*unique, *bounds], pending, collect)
        for trial, ready, refused in built:
            self.refused += refused
            for one in ready:
                own = ran.get(one.run_id)
                if own is None or own.number != one.number:
                    own = _again(one, own, earlier)
                    report(own)
                trial.outcomes.append(own)
            trial.outcomes += [_refusal(one) for one in refused]
            for outcome in trial.outcomes[len(ready) :]:
                report(outcome)
            self._judge(trial)

    def _is_pending(self, one: Configuration, earlier: Mapping[str, Run]) -> bool:
        run = earlier.get(one.run_id)
        pruned = run is not None and _pruned((run.record["error"] or {}).get("summary"))
        return is_pending(run, self.retry_failed and not pruned)

    def _watch(self, built: Sequence[tuple[Trial, list[Configuration], Any]], pending: Sequence[Configuration]) -> None:
        from defectlab.sweeps.search.pruning import Pruner

        waiting = {one.run_id for one in pending}
        for trial, ready, _ in built:
            for one in ready:
                if one.run_id in waiting and model_info(one.model.model_name).epochs is None:
                    one.engine.add_callback(Pruner(trial.watch, self.search.objective))

    def _judge(self, trial: Trial) -> None:
        """Set a trial's state and value from its outcomes."""
        lost = next((one for one in trial.outcomes if not one.has_metrics), None)
        if lost is not None:
            trial.state, trial.error = PRUNED if lost.status == "pruned" else FAILED, lost.error
            return
        runs = [Run.open(one.record) for one in trial.outcomes if one.record]
        metric = objective_value(runs, self.search.objective)
        trial.state, trial.value = (FAILED if metric.value is None else COMPLETE), metric.value
        trial.error = None if metric.value is not None else f"{self.search.objective}: {metric.reason}"


def run_search(search: Search, folder: Path, report: Report, study: Study, told: Callable[[list[Trial]], None]) -> None:
    """Ask, run, judge and tell until there are enough trials; `trials.csv` is written after each round."""
    asked = study.ask()
    while asked:
        search.round(asked, report)
        for trial in asked:
            study.tell(trial)
            value = trial.error if trial.value is None else f"{trial.value:.4f} on validation images"
            logger.info("Trial %d %s: %s %s", trial.number, trial.state, search.search.objective, value)
        trials = study.told()
        write_trials(folder / "trials.csv", trials, search.search.objective)
        told(trials)
        asked = study.ask()


@contextmanager
def study_of(search: Search, folder: Path) -> Iterator[Study]:
    """Open the study of a search.

    Raises:
        InputError: It cannot be opened; says why.
    """
    if search.search.strategy == "random":
        yield RandomStudy(search.search, search.settings.grid)
        return
    with open_study(
        folder, search.search, search.settings.grid, search.identity, search.weights, search.retry_failed
    ) as study:
        yield study


def describe(search: Search, judges: int, told: int) -> str:
    """Say in a line what a search will do."""
    config, size = search.search, space_size(search.settings.grid)
    aim = "highest" if config.maximizes else "lowest"
    return (
        f"Search ({config.strategy}, seed {config.seed}): {config.trials} trials, {told} on record, of "
        f"{'endlessly many' if size is None else size} combinations in {len(search.settings.grid)} parts; {aim} "
        f"{config.objective} on {judges} validation images"
        + (f"; pruned by the median after {config.pruning['startup_trials']} trials" if config.pruning else "")
    )


def plan_of(search: Search, study: RandomStudy) -> Plan:
    """Return what a random search will compute; its trials are known before it starts."""
    built = search.built(study.ask())
    unique = {one.run_id: one for _, ready, _ in built for one in ready}
    refused = [one for _, _, refused in built for one in refused]
    if not unique:
        raise InputError(refused[0].error if refused else "The search has no trial.")
    set_prefix_values(
        search.settings.grid, [(t.values, one) for t, ready, _ in built for one in ready], search.components
    )
    ones = list(unique.values())
    return make_plan(ones, refused, search.earlier(ones), search.store, retry_failed=search.retry_failed)


def _again(one: Configuration, own: Outcome | None, earlier: Mapping[str, Run]) -> Outcome:
    """Return the outcome of a configuration that another trial, or an earlier sweep, has run."""
    if own is not None:
        return replace(own, number=one.number, status="kept" if own.has_metrics else own.status, seconds=0.0)
    run = earlier[one.run_id]
    if run.status == "finished":
        return outcome_of(one, "kept", run)
    error = (run.record["error"] or {}).get("summary")
    return outcome_of(one, "pruned" if _pruned(error) else "failed", run, error=error)


def _pruned(error: str | None) -> bool:
    return "PrunedTrialError" in (error or "")


def _refusal(refused: Refused) -> Outcome:
    data = refused.data["data"]
    dataset = str(data.get("name") or Path(str(data.get("root"))).name)
    return Outcome(refused.number, refused.label, dataset, int(refused.data["seed"]), "refused", error=refused.error)
