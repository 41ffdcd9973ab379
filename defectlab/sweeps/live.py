"""The state of a running sweep: log lines in a terminal, a table that renews itself in a notebook."""

import html
import logging
import time
from collections.abc import Iterable
from typing import Any

from defectlab.progress import clock, in_notebook
from defectlab.results.workbook.rows import BARE_METRICS
from defectlab.sweeps.table import Outcome, best_first

logger = logging.getLogger(__name__)

SHOWN = 10


class Live:
    """Collects outcomes and shows them as they come.

    Args:
        total: Configurations of the sweep.
        known: Outcomes known before it starts.
    """

    def __init__(self, total: int, known: Iterable[Outcome] = ()) -> None:
        self.outcomes: list[Outcome] = list(known)
        self.total = total + sum(one.status == "refused" for one in self.outcomes)
        self._started = time.monotonic()
        self._handle: Any = None
        self._draw()

    def report(self, outcome: Outcome) -> None:
        """Take one outcome and show it."""
        self.outcomes.append(outcome)
        metrics = ", ".join(
            f"{name} {value:.4f}" for name in BARE_METRICS if (value := outcome.metrics.get(name)) is not None
        )
        said = outcome.error or metrics or "no metrics"
        done = len(self.outcomes)
        logger.info("%d of %d %s: %s on %s: %s", done, self.total, outcome.status, outcome.label, outcome.dataset, said)
        self._draw()

    def close(self) -> None:
        """Show the last state."""
        self._draw()

    def _draw(self) -> None:
        if not in_notebook():
            return
        from IPython.display import HTML, display

        shown = HTML(self.html())
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def html(self) -> str:
        """Return the table: how far it is, and the best so far."""
        done, failed = len(self.outcomes), sum(one.is_failure for one in self.outcomes)
        busy = sum(one.status == "busy" for one in self.outcomes)
        elsewhere = f"{busy} being run by another process, " if busy else ""
        passed = clock(time.monotonic() - self._started)
        state = f"{done} of {self.total} configurations, {failed} failed, {elsewhere}{passed}"
        heading = "".join(f"<th>{html.escape(name)}</th>" for name in ("dataset", "configuration", *BARE_METRICS))
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(one)) + "</tr>"
            for one in best_first(self.outcomes, BARE_METRICS[0])[:SHOWN]
        )
        bar = f'<progress max="{self.total}" value="{done}" style="width:18em"></progress>'
        return f"<div>{bar} {html.escape(state)}</div><table><tr>{heading}</tr>{rows}</table>"


def _cells(one: Outcome) -> list[str]:
    values = (one.metrics.get(name) for name in BARE_METRICS)
    return [one.dataset, one.label, *("" if value is None else f"{value:.4f}" for value in values)]
