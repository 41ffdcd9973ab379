"""Progress bars for a terminal and for Jupyter, which write nothing to a log file.

Bars are shown while their work runs and are then removed; only the log line of a stage remains.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from defectlab_runtime import names

REDRAW = 0.2  # seconds; a notebook's front end stores every redraw it is sent

Update = Callable[[int, int | None], None]


def in_notebook() -> bool:
    """Return whether this process is a notebook kernel; an import of ipykernel alone does not count."""
    shell = sys.modules["IPython"].get_ipython() if "ipykernel" in sys.modules and "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def is_interactive() -> bool:
    """Return whether a progress bar would be visible: in a terminal or a notebook."""
    return sys.stderr.isatty() or in_notebook()


class Display(Protocol):
    """Protocol of a display that shows several progress bars, one below the other."""

    def add(self, label: str, total: int | None, of_bytes: bool) -> int:
        """Show a new progress bar and return the number that identifies the bar."""

    def update(self, number: int, done: int, total: int | None, label: str | None) -> None:
        """Set the progress of a bar; None keeps its label."""

    def remove(self, number: int) -> None:
        """Remove a bar; with the last one the display disappears."""


class Bar:
    """A bar on the display that all bars of this process share, so that they never overwrite each other."""

    def __init__(self, label: str, total: int | None, *, of_bytes: bool = False) -> None:
        self._display = _display() if is_interactive() else None
        self._number = self._display.add(label, total, of_bytes) if self._display else 0

    def update(self, done: int, total: int | None, label: str | None = None) -> None:
        """Set the bar to `done` of `total`; a label replaces the one shown."""
        if self._display:
            self._display.update(self._number, done, total, label)

    def close(self) -> None:
        """Remove the bar from the display; further calls have no effect."""
        if self._display:
            self._display.remove(self._number)
        self._display = None


@contextmanager
def progress_bar(label: str, total: int | None, *, of_bytes: bool = False) -> Iterator[Update]:
    """Show a bar with the remaining time in a terminal or notebook; yield the function `progress(done, total)`."""
    bar = Bar(label, total, of_bytes=of_bytes)
    try:
        yield bar.update
    finally:
        bar.close()


@dataclass
class _NotebookBar:
    """State of a progress bar in a notebook: label, counts and start time."""

    label: str
    total: int | None
    of_bytes: bool
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    def html(self) -> str:
        """Return the HTML of a native progress element with counts and times beside it."""
        elapsed = time.monotonic() - self.started
        amounts = (self.done / 1e6, (self.total or 0) / 1e6) if self.of_bytes else (self.done, self.total or 0)
        digits, unit = (1, " MB") if self.of_bytes else (0, "")
        text = f"{amounts[0]:.{digits}f}{unit}"
        extent = ""
        if self.total:
            text = f"{amounts[0]:.{digits}f} of {amounts[1]:.{digits}f}{unit}"
            extent = f' max="{self.total}" value="{self.done}"'
            if 0 < self.done < self.total:
                text += f", {clock(elapsed * (self.total - self.done) / self.done)} left"
        label = f'<span style="display:inline-block;min-width:18em">{names.html(self.label)}</span>'
        bar = f'<progress style="width:18em;vertical-align:middle"{extent}></progress>'
        return f'<div style="padding-left:6px">{label}{bar} <small>{text}, {clock(elapsed)} so far</small></div>'


class NotebookDisplay:
    """Progress bars in one output of a notebook cell, redrawn in place; empty without bars. Needs no widgets."""

    def __init__(self) -> None:
        self._bars: dict[int, _NotebookBar] = {}
        self._handle: Any = None
        self._drawn = 0.0
        self._count = 0

    def add(self, label: str, total: int | None, of_bytes: bool) -> int:
        """Show a new progress bar and return the number that identifies the bar."""
        self._count += 1
        self._bars[self._count] = _NotebookBar(label, total, of_bytes)
        self._draw()
        return self._count

    def update(self, number: int, done: int, total: int | None, label: str | None) -> None:
        """Set the progress of a bar; drawn at most five times a second."""
        bar = self._bars[number]
        bar.done, bar.total, bar.label = done, total, bar.label if label is None else label
        if time.monotonic() - self._drawn >= REDRAW:
            self._draw()

    def remove(self, number: int) -> None:
        """Remove a progress bar from the display."""
        self._bars.pop(number, None)
        self._draw()

    def _draw(self) -> None:
        from IPython.display import HTML, display

        self._drawn = time.monotonic()
        picture = HTML("".join(bar.html() for bar in self._bars.values()))
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        elif self._handle:
            self._handle.update(picture)


class TerminalDisplay:
    """Progress bars at the bottom of the terminal; log messages scroll above them."""

    def __init__(self) -> None:
        self._progress: Any = None

    def add(self, label: str, total: int | None, of_bytes: bool) -> int:
        """Show a new progress bar and return the number that identifies the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        if self._progress is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[amount]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
        return self._progress.add_task(
            _plain(label), total=total, of_bytes=of_bytes, amount=_amount(0, total, of_bytes)
        )

    def update(self, number: int, done: int, total: int | None, label: str | None) -> None:
        """Set the progress of a bar and its label."""
        of_bytes = next(task for task in self._progress.tasks if task.id == number).fields["of_bytes"]
        self._progress.update(
            number,
            completed=done,
            total=total,
            description=None if label is None else _plain(label),
            amount=_amount(done, total, of_bytes),
        )

    def remove(self, number: int) -> None:
        """Remove a bar; removing the last one clears the display from the terminal."""
        self._progress.remove_task(number)
        if not self._progress.tasks:
            self._progress.stop()
            self._progress = None


def _plain(label: str) -> str:
    """Return a label without characters or brackets that rich takes for commands."""
    from rich.markup import escape

    return escape(names.terminal(label))


def clock(seconds: float) -> str:
    """Return a duration as text of minutes and seconds.

    >>> clock(75.4)
    '1:15'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _amount(done: int, total: int | None, of_bytes: bool) -> str:
    scale, unit = (1_000_000, " MB") if of_bytes else (1, "")
    return f"{done // scale}/{'?' if total is None else total // scale}{unit}"


_shared: list[tuple[int, Display]] = []


def _display() -> Display:
    """Return the display that all bars of this process share; in a notebook each running cell has its own."""
    cell = _cell()
    if not _shared or _shared[0][0] != cell:
        _shared[:] = [(cell, NotebookDisplay() if in_notebook() else TerminalDisplay())]
    return _shared[0][1]


def _cell() -> int:
    """Return the execution number of the running notebook cell, or 0 outside a notebook."""
    if not in_notebook():
        return 0
    from IPython import get_ipython

    return getattr(get_ipython(), "execution_count", 0)
