"""Progress that reads well in a terminal and in Jupyter, and stays silent in a log file."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def watched() -> bool:
    """Whether somebody sees a bar move: in a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextmanager
def progress_bar(
    label: str, total: int | None, *, of_bytes: bool = False
) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar with the remaining time where somebody watches; yields `progress(done, total)`."""
    amount: ProgressColumn = DownloadColumn() if of_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not watched()) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)
