"""The result of a sweep: its outcomes, trials and tables."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from defectlab.results.run.run import Run
from defectlab.sweeps.checkpoints import DEFAULT_METRIC, RetainedCheckpoints
from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.plan import Plan
from defectlab.sweeps.selection import choose
from defectlab.sweeps.table import LiveTable, Outcome, mean_rows, print_outcomes, renew_workbook, write_outcomes
from defectlab.utils import paths
from defectlab.utils.files import replacing
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

COMPLETE, FAILED, PRUNED = "complete", "failed", "pruned"


@dataclass
class Trial:
    """One trial of a search: options, state (`open` until judged), objective value, outcomes by dataset and seed.

    `optuna_trial` is the Optuna trial that is told the result, and each epoch's value if trainings are pruned.
    """

    number: int
    values: dict[str, Any]
    state: str = "open"
    value: float | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    error: str | None = None
    optuna_trial: Any = None


@dataclass(frozen=True)
class SweepResult:
    """Result of a sweep: the outcomes of all configurations, and the trials of a search.

    Attributes:
        plan: What was computed.
        outcomes: One for each configuration, in the order of the sweep; none where only the plan was asked for.
        folder: `results/sweeps/<name>/`, with `sweep.yaml` and `table.csv`; of a search `trials.csv` too.
        trials: Of a search: what was drawn, and what its validation images say of it.
        checkpoints: The runs whose checkpoints were asked for, and what could not be made.
        problems: Why fits with a few images (`data.k_shots`) could not be made of finished runs.
    """

    plan: Plan
    outcomes: Sequence[Outcome]
    folder: Path
    trials: Sequence[Trial] = ()
    checkpoints: RetainedCheckpoints = field(default_factory=RetainedCheckpoints)
    problems: Sequence[str] = ()

    @property
    def runs(self) -> list[Run]:
        """The finished runs, in the order of the sweep."""
        return [Run.open(one.record) for one in self.outcomes if one.has_metrics and one.record]

    @property
    def failed(self) -> list[Outcome]:
        """Outcomes that failed or cannot work; neither pruned ones nor those that another process is running."""
        return [one for one in self.outcomes if one.is_failure]

    def best(self, metric: str = DEFAULT_METRIC) -> Run:
        """Return the run with the best metric on the validation images; ties are broken by pixel_AUROC.

        Raises:
            InputError: Nothing is finished, datasets are several, or there is no labelled validation image.
        """
        runs = self.runs
        if len({run.record.dataset.name for run in runs}) != 1:
            raise InputError("There is a best configuration of one dataset only: nothing is finished, or on several.")
        chosen = choose(runs, metric)
        if chosen is None:
            raise InputError(
                f"No validation image has {metric}: the best can be chosen on the test images only, which their "
                "metrics do not survive. table.csv has all of them."
            )
        return chosen.run


def runs_of_outcomes(outcomes: Sequence[Outcome]) -> dict[str, Run]:
    """Return the finished runs by run id, in the order of the sweep."""
    ordered = sorted(outcomes, key=lambda one: one.number)
    runs = [Run.open(one.record) for one in ordered if one.has_metrics and one.record]
    return {run.record.run_id: run for run in runs}


def conclude(folder: Path, settings: SweepConfig, live: LiveTable) -> list[Outcome]:
    """Write and print the tables of a finished or interrupted sweep; return the outcomes ordered by number."""
    outcomes = sorted(live.outcomes, key=lambda one: one.number)
    means = mean_rows(outcomes, settings.named_groups())
    table = folder / "table.csv"
    try:
        write_outcomes(table, outcomes, means)
    except OSError as error:  # such as a file open in Excel, or a full disk
        logger.error("%s could not be written (%s); the records have all of it", table, error)
    renew_workbook()
    live.draw()
    busy = sum(one.status == "busy" for one in outcomes)
    if busy:
        logger.info("%d being run by another process: call the sweep again when it is done", busy)
    print_outcomes(outcomes, means)
    logger.info("Table: %s; workbook: %s", paths.relative(table), paths.workbook().name)
    return outcomes


def write_settings(folder: Path, settings: SweepConfig) -> None:
    """Write the sweep's settings to `sweep.yaml` beside the results table.

    Raises:
        InputError: The folder cannot be written to.
    """
    data: dict[str, Any] = {"name": settings.name, "base": settings.base, "seeds": list(settings.seeds)}
    data |= {"loggers": settings.loggers} if settings.loggers else {}
    data |= {"search": asdict(settings.search)} if settings.search else {"experiments": list(settings.expanded())}
    try:
        with replacing(folder / "sweep.yaml") as partial:
            partial.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The sweep's folder {folder} cannot be written to ({error}). DEFECTLAB_RESULTS puts results elsewhere."
        ) from error
