"""Tables of the trials of a search: ranking, CSV file and printed table. Imports no torch."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from defectlab.sweeps.result import COMPLETE, FAILED, PRUNED, Trial
from defectlab.sweeps.table import MIN_WIDTH
from defectlab.utils.files import write_csv
from defectlab.utils.table import Column, Table, numbers, print_line, print_table

MAX_ROWS = 10


def ranked(trials: Iterable[Trial], maximizes: bool) -> list[Trial]:
    """Return the complete trials, best first; of equal trials the earliest comes first."""
    complete = [(trial.value, trial) for trial in trials if trial.state == COMPLETE and trial.value is not None]
    return [trial for _, trial in sorted(complete, key=lambda p: (-p[0] if maximizes else p[0], p[1].number))]


def write_trials(path: Path, trials: Sequence[Trial], objective: str) -> Path:
    """Write every trial as CSV: its state, the objective on validation images, options, records, error."""
    options = list(dict.fromkeys(option for trial in trials for option in trial.values))
    rows = []
    for trial in sorted(trials, key=lambda trial: trial.number):
        records = "; ".join(one.record for one in trial.outcomes if one.record)
        given = [trial.values.get(option) for option in options]
        rows.append([trial.number, trial.state, trial.value, *given, records, trial.error])
    return write_csv(path, ["trial", "state", f"validation {objective}", *options, "records", "error"], rows)


def print_trials(trials: Sequence[Trial], objective: str, maximizes: bool) -> None:
    """Print the best trials by the objective on validation images, and a summary of the other trials."""
    best = ranked(trials, maximizes)
    if best:
        rows = [
            [
                one.number,
                one.value,
                ", ".join(f"{name.partition('.')[2]}={value}" for name, value in one.values.items()),
            ]
            for one in best[:MAX_ROWS]
        ]
        title = f"{len(best)} of {len(trials)} trials complete; best first by {objective}, validation images"
        columns = [
            *numbers("trial", wrap=True),
            *numbers(objective, form=".4f", wrap=True),
            Column("options", wrap=True),
        ]
        print_table(Table(columns, rows), title=title, width=MIN_WIDTH)
    states = {state: sum(trial.state == state for trial in trials) for state in (FAILED, PRUNED)}
    if any(states.values()):
        print_line(", ".join(f"{count} {state}" for state, count in states.items() if count) + ": see trials.csv")
