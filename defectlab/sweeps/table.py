"""Tables of a sweep's results: a row for each configuration, mean rows over datasets and seeds. Imports no torch."""

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.results.workbook import update_workbook
from defectlab.utils.files import write_csv
from defectlab.utils.progress import clock, in_notebook
from defectlab.utils.table import Table, numbers, print_table, to_html
from defectlab_runtime import names

logger = logging.getLogger(__name__)

MIN_WIDTH = 120  # characters, since without a terminal only 80 are assumed
WORKBOOK_SECONDS = 60.0  # between two writes of the workbook while a sweep runs
MAX_ROWS = 15
MAX_LIVE_ROWS = 10
Metrics = Mapping[str, float | None]


@dataclass
class Outcome:
    """Outcome of one configuration of a sweep.

    `status`: finished (now), kept (finished earlier, or meanwhile by another process), busy (another process is running
    it), pruned (by a search), failed or refused (it cannot work).
    """

    number: int
    label: str
    dataset: str
    seed: int
    status: str
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    record: str | None = None
    error: str | None = None
    seconds: float = 0.0

    @property
    def has_metrics(self) -> bool:
        """Whether the configuration is finished, now or earlier."""
        return self.status in ("finished", "kept")

    @property
    def is_failure(self) -> bool:
        """Whether the configuration failed or cannot work."""
        return self.status in ("failed", "refused")


@dataclass(frozen=True)
class MeanRow:
    """Means of one configuration's metrics over datasets and seeds; a metric that any of its runs lacks is None."""

    label: str
    over: str
    metrics: dict[str, float | None]


def mean_rows(outcomes: Sequence[Outcome], groups: Mapping[str, Sequence[str]]) -> list[MeanRow]:
    """Return means over all datasets and seeds of each configuration, and over named groups of datasets within them.

    Only configurations that are finished on every dataset and seed of a group have its mean.
    """
    datasets = sorted({one.dataset for one in outcomes})
    seeds = {one.seed for one in outcomes}
    wanted = {"all": datasets}
    for name, members in groups.items():
        present = [dataset for dataset in datasets if dataset in members]
        if len(present) > 1 and present != datasets:
            wanted[name] = present
    by_settings: dict[str, list[Outcome]] = {}
    for one in outcomes:
        by_settings.setdefault(json.dumps(one.settings, sort_keys=True, default=str), []).append(one)
    rows = []
    for name, members in wanted.items():
        counted = [f"{len(members)} datasets"] if len(members) > 1 else members
        counted = [*counted, f"{len(seeds)} seeds"] if len(seeds) > 1 else counted
        for its in by_settings.values():
            chosen = [one for one in its if one.dataset in members and one.has_metrics]
            if len(chosen) > 1 and len(chosen) == len(members) * len(seeds):
                means = {metric: _mean([one.metrics.get(metric) for one in chosen]) for metric in BARE_METRICS}
                rows.append(MeanRow(chosen[0].label, f"mean of {name}: {', '.join(counted)}", means))
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def write_outcomes(path: Path, outcomes: Sequence[Outcome], means: Sequence[MeanRow]) -> Path:
    """Write a CSV file with a row for every outcome and every mean row."""
    header = ["number", "dataset", "configuration", "seed", "status", *BARE_METRICS, "record", "error"]
    rows = [
        [one.number, one.dataset, one.label, one.seed, one.status, *_values(one.metrics), one.record, one.error]
        for one in sorted(outcomes, key=lambda one: one.number)
    ]
    rows += [["", row.over, row.label, "", "mean", *_values(row.metrics), "", ""] for row in means]
    return write_csv(path, header, rows)


def renew_workbook() -> None:
    """Update the workbook; an error is logged and does not stop the sweep."""
    try:
        update_workbook()
    except Exception:
        logger.exception("The workbook could not be renewed: mend it or move it away, then run `defectlab compare`.")


def print_outcomes(outcomes: Sequence[Outcome], means: Sequence[MeanRow], metric: str = BARE_METRICS[0]) -> None:
    """Print the best configurations by a metric, mean rows, and every error."""
    finished = best_first(outcomes, metric)
    if finished:
        best = [[one.dataset, one.label, str(one.seed), *_values(one.metrics)] for one in finished[:MAX_ROWS]]
        ordered = sorted(means, key=lambda row: -_rank(row.metrics, metric))[:MAX_ROWS]
        rows = [*best, *([row.over, row.label, "", *_values(row.metrics)] for row in ordered)]
        table = Table(["dataset", "configuration", "seed", *numbers(*BARE_METRICS, wrap=True)], rows)
        title = f"{len(finished)} of {len(outcomes)} configurations finished; best first by {metric}"
        print_table(table, title=title, missing="", bold=range(len(best), len(rows)), width=MIN_WIDTH)
    console = Console(width=max(Console().width, MIN_WIDTH))
    for one in outcomes:
        if one.error:
            text = names.terminal(f"{one.status}: {one.label} on {one.dataset}: {one.error}", lines=True)
            console.print(text, soft_wrap=True, markup=False, emoji=False)


def best_first(outcomes: Sequence[Outcome], metric: str) -> list[Outcome]:
    """Return the finished outcomes, best first; equal ones in the order of the sweep."""
    finished = [one for one in outcomes if one.has_metrics]
    return sorted(finished, key=lambda one: (-_rank(one.metrics, metric), one.number))


def _rank(metrics: Metrics, metric: str) -> float:
    value = metrics.get(metric)
    return -1.0 if value is None else value


def _values(metrics: Metrics) -> list[float | None]:
    return [metrics.get(name) for name in BARE_METRICS]


class LiveTable:
    """Collects outcomes, logs each as it is reported, shows the best so far in a notebook and updates the workbook.

    Args:
        total: Configurations of the sweep.
        known: Outcomes known before it starts.
    """

    def __init__(self, total: int, known: Iterable[Outcome] = ()) -> None:
        self.outcomes: list[Outcome] = list(known)
        self.total = total + sum(one.status == "refused" for one in self.outcomes)
        self._started = self._workbook_renewed = time.monotonic()
        self._handle: Any = None
        self.draw()

    def report(self, outcome: Outcome) -> None:
        """Record one outcome, log it and show the best outcomes so far."""
        self.outcomes.append(outcome)
        values = zip(BARE_METRICS, _values(outcome.metrics), strict=True)
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in values if value is not None)
        result = outcome.error or metrics or "no metrics"
        done, dataset = len(self.outcomes), outcome.dataset
        logger.info("%d of %d %s: %s on %s: %s", done, self.total, outcome.status, outcome.label, dataset, result)
        self.draw()
        if time.monotonic() - self._workbook_renewed > WORKBOOK_SECONDS:
            renew_workbook()
            self._workbook_renewed = time.monotonic()

    def draw(self) -> None:
        """Show the state of the sweep if this is a notebook; otherwise do nothing."""
        if not in_notebook():
            return
        from IPython.display import HTML, display

        shown = HTML(self.html())
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def html(self) -> str:
        """Return HTML with the progress of the sweep and a table of the best outcomes so far."""
        done, failed = len(self.outcomes), sum(one.is_failure for one in self.outcomes)
        busy = sum(one.status == "busy" for one in self.outcomes)
        elsewhere = f"{busy} being run by another process, " if busy else ""
        passed = clock(time.monotonic() - self._started)
        state = f"{done} of {self.total} configurations, {failed} failed, {elsewhere}{passed}"
        best = best_first(self.outcomes, BARE_METRICS[0])[:MAX_LIVE_ROWS]
        rows = [[one.dataset, one.label, *_values(one.metrics)] for one in best]
        table = Table(["dataset", "configuration", *BARE_METRICS], rows)
        bar = f'<progress max="{self.total}" value="{done}" style="width:18em"></progress>'
        return f"<div>{bar} {names.html(state)}</div>{to_html(table, missing='')}"
