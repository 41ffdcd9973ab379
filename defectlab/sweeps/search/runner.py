"""Execution of a search: trials are drawn, run as a sweep's configurations are, and judged by validation images."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from defectlab.experiment import ComponentCache, Experiment
from defectlab.models.registry import model_info
from defectlab.results.calibration import withdraw_recorded
from defectlab.results.run.run import Run
from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.configurations import Configuration, Refused, RunIndex, build_all
from defectlab.sweeps.execute import Report, earlier_outcome, is_pruned, refused_outcome
from defectlab.sweeps.executors import Executor
from defectlab.sweeps.plan import is_pending
from defectlab.sweeps.result import COMPLETE, FAILED, PRUNED, Trial
from defectlab.sweeps.search.pruning import Pruner
from defectlab.sweeps.search.shared_ranges import set_prefix_values
from defectlab.sweeps.search.study import SearchStudy
from defectlab.sweeps.search.trials import write_trials
from defectlab.sweeps.search_config import SearchConfig
from defectlab.sweeps.search_space import Choices, Options, expand
from defectlab.sweeps.selection import check_objective, objective_value
from defectlab.sweeps.table import Outcome
from defectlab_runtime.errors import InputError, OptionError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuiltTrial:
    """A trial with its configurations, one for each dataset and seed: those that can run, and those refused."""

    trial: Trial
    configurations: Sequence[Configuration]
    refused: Sequence[Refused]


@dataclass
class SearchRunner:
    """Runs the trials of a search, which share `components`, the executor's shared work and the recorded runs."""

    settings: SweepConfig
    config: SearchConfig
    executor: Executor
    records: RunIndex
    retry_failed: bool = False
    components: ComponentCache = field(default_factory=ComponentCache)
    refused: list[Refused] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)
    weights: list[str] = field(default_factory=list)

    def check(self) -> int:
        """Check, before anything is computed, that trials can be judged; return the number of validation images.

        Raises:
            InputError: They cannot; says what is missing.
        """
        if self.config.pruning is not None and self.runs_per_trial > 1:
            raise OptionError("search: pruning needs one dataset and one seed: a trial of several has no one training.")
        if self.config.objective.startswith("pixel"):
            own: Options = Choices((self.settings.base.get("trainer", {}).get("keep_maps", "all"),))
            if any(set(one.get("trainer.keep_maps", own).values) != {"all"} for one in self.settings.grid):
                raise OptionError(f"search: {self.config.objective} needs maps: leave trainer.keep_maps at all.")
        manifests = {}
        for data in self._experiments("data.", all_models=False):
            manifest = self.components.datamodule(Experiment.from_dict(data)).manifest
            manifests[manifest.hash] = manifest
        check_objective(manifests.values(), self.config.objective)
        self.identity = {"base": self.settings.base, "seeds": self.settings.seeds, "images": sorted(manifests)}
        if (
            self.settings.cache_dtype != "float32"
        ):  # left out at the default, so that earlier studies keep their identity
            self.identity["cache_dtype"] = self.settings.cache_dtype
        self.weights = self._weights()
        return sum(len(manifest.split("validation")) for manifest in manifests.values())

    def _weights(self) -> list[str]:
        """Return the sorted hashes of all weights that trials can use, as the weights files hold them now."""
        hashes = set()
        for data in self._experiments("backbone.", all_models=True):
            try:
                backbone = self.components.backbone(Experiment.from_dict(data))
            except InputError:  # the trials that use it report the error
                continue
            hashes |= {backbone.weights.sha256} if backbone is not None else set()
        return sorted(hashes)

    def _experiments(self, section: str, *, all_models: bool) -> Iterator[dict[str, Any]]:
        """Yield, as plain data, each combination of a section's options with each subspace's first model, or all."""
        own = Choices((self.settings.base.get("model", {}).get("name"),))
        for subspace in self.settings.grid:
            options = {name: value for name, value in subspace.items() if name.startswith(section)}
            models = subspace.get("model.name", own).values
            for values in expand({**options, "model.name": Choices(models if all_models else models[:1])}):
                yield from self.settings.completed(values)

    @property
    def runs_per_trial(self) -> int:
        """Number of configurations of each trial: one for each dataset and seed."""
        return max(1, len(self.settings.roots())) * len(self.settings.seeds)

    def build(self, trials: Sequence[Trial]) -> tuple[list[BuiltTrial], list[Configuration], list[Configuration]]:
        """Build the configurations of trials.

        Returns:
            The trials with their configurations; all that differ; and placeholders, see `set_prefix_values`.
        """
        built = []
        for trial in trials:
            experiments = list(self.settings.completed(trial.values))
            built.append(
                BuiltTrial(trial, *build_all(experiments, self.components, trial.number * self.runs_per_trial + 1))
            )
        pairs = [(one.trial.values, configuration) for one in built for configuration in one.configurations]
        placeholders = set_prefix_values(self.settings.grid, pairs, self.components)
        distinct: dict[str, Configuration] = {}
        for _, configuration in pairs:
            distinct.setdefault(configuration.run_id, configuration)
        return built, list(distinct.values()), placeholders

    def run(self, trials: Sequence[Trial], report: Report) -> None:
        """Run trials together and set the state, value and outcomes of each; recorded runs are not run again."""
        built, distinct, placeholders = self.build(trials)
        earlier = self.records.runs_of(distinct)
        pending = {one.run_id: one for one in distinct if self._is_pending(earlier.get(one.run_id))}
        if self.config.pruning is not None:
            self._add_pruners(built, pending)
        run_ids = {one.number: run_id for run_id, one in pending.items()}
        finished: dict[str, Outcome] = {}

        def collect(outcome: Outcome) -> None:
            finished[run_ids[outcome.number]] = outcome
            if outcome.record:
                self.records.add(Run.open(outcome.record))
            report(outcome)

        self.executor.run([*distinct, *placeholders], list(pending.values()), collect)
        for one in built:
            self.refused += one.refused
            for configuration in one.configurations:
                outcome = finished.get(configuration.run_id)
                if outcome is None or outcome.number != configuration.number:
                    outcome = _known_outcome(configuration, outcome, earlier.get(configuration.run_id))
                    report(outcome)
                one.trial.outcomes.append(outcome)
            for refused in map(refused_outcome, one.refused):
                one.trial.outcomes.append(refused)
                report(refused)
            self._judge(one.trial)

    def _is_pending(self, run: Run | None) -> bool:
        return is_pending(run, self.retry_failed and not is_pruned(run))

    def _add_pruners(self, built: Sequence[BuiltTrial], pending: dict[str, Configuration]) -> None:
        """Add a `Pruner` to each pending training whose model has no fixed number of epochs."""
        for one in built:
            for configuration in one.configurations:
                if configuration.run_id in pending and model_info(configuration.model.model_name).epochs is None:
                    configuration.engine.add_callback(Pruner(one.trial.optuna_trial, self.config.objective))

    def _judge(self, trial: Trial) -> None:
        """Set state, value and error of a trial from its outcomes."""
        lost = next((one for one in trial.outcomes if not one.has_metrics), None)
        if lost is not None:
            trial.state, trial.error = PRUNED if lost.status == "pruned" else FAILED, lost.error
            return
        runs = [Run.open(one.record) for one in trial.outcomes if one.record]
        for run in runs:
            if run.record.sweep_facts.objective is None:
                run.update(sweep=run.record.sweep_facts.replaced(objective=self.config.objective))
                withdraw_recorded(run)
        metric = objective_value(runs, self.config.objective)
        trial.state, trial.value = (FAILED if metric.value is None else COMPLETE), metric.value
        trial.error = None if metric.value is not None else f"{self.config.objective}: {metric.reason}"


def run_search(search: SearchRunner, folder: Path, report: Report, study: SearchStudy) -> list[Trial]:
    """Ask, run, judge and tell until there are enough trials, and return all trials; each round writes `trials.csv`."""
    asked = study.ask()
    while asked:
        search.run(asked, report)
        for trial in asked:
            study.tell(trial)
            value = trial.error if trial.value is None else f"{trial.value:.4f} on validation images"
            logger.info("Trial %d %s: %s %s", trial.number, trial.state, search.config.objective, value)
        write_trials(folder / "trials.csv", study.completed_trials(), search.config.objective)
        asked = study.ask()
    return study.completed_trials()


def _known_outcome(one: Configuration, outcome: Outcome | None, run: Run | None) -> Outcome:
    """Return the outcome of a configuration that another trial of this round, or an earlier run, has computed."""
    if outcome is not None:
        status = "kept" if outcome.has_metrics else outcome.status
        return replace(outcome, number=one.number, status=status, seconds=0.0)
    assert run is not None
    known = earlier_outcome(one, run)
    return replace(known, status="pruned") if is_pruned(run) else known
