"""Runs against each other, on the same test images: differences that can be told from chance, and ties."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from defectlab.errors import InputError
from defectlab.evaluation.intervals import Interval, PairedTest, auroc_interval, delong_test, holm
from defectlab.evaluation.metrics import auroc
from defectlab.results.evaluate import columns
from defectlab.results.parts import row_parts
from defectlab.results.record import Run, ScoreRow

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Compared:
    """One run beside the best of those compared; `test` and `p` (corrected by Holm) are None for the best itself."""

    run: Run
    image_auroc: float
    interval: Interval
    test: PairedTest | None
    p: float | None

    @property
    def tied(self) -> bool:
        """Whether it cannot be told from the best."""
        return self.p is None or self.p >= SIGNIFICANT


def compare_runs(runs: Sequence[Run]) -> list[Compared]:
    """Compare runs by image AUROC, best first, each with the best by DeLong's paired test, corrected by Holm.

    Raises:
        InputError: Fewer than two runs, other test images, or too few images of a class.
    """
    if len(runs) < 2:
        raise InputError("Comparing needs at least two runs: defectlab compare RUN RUN ...")
    rows, labels, scores = _matched(runs)
    groups = row_parts(runs[0].record, rows)
    values = [auroc(score, labels) for score in scores]
    missing = next((value.reason for value in values if value.value is None), None)
    if missing:
        raise InputError(f"The image AUROC has no value on these test images: {missing}.")
    best = max(range(len(runs)), key=lambda index: values[index].value or 0.0)  # of equals the first given
    others = [index for index in range(len(runs)) if index != best]
    tests = {str(index): delong_test(scores[best], scores[index], labels, groups=groups) for index in others}
    corrected = holm({index: test.p for index, test in tests.items()})
    found = [
        Compared(
            run,
            values[index].value or 0.0,
            auroc_interval(scores[index], labels, groups=groups),
            tests.get(str(index)),
            corrected.get(str(index)),
        )
        for index, run in enumerate(runs)
    ]
    return sorted(found, key=lambda one: (one.test is not None, -one.image_auroc))


def _matched(runs: Sequence[Run]) -> tuple[list[ScoreRow], np.ndarray, list[np.ndarray]]:
    """Return the first run's rows, the labels of the shared test images and each run's scores of them, in one order."""
    first = runs[0]
    manifests = {run.record["dataset"]["manifest"] for run in runs}
    if len(manifests) > 1:
        names = ", ".join(f"{run.folder.name} on {run.record['dataset']['name']}" for run in runs)
        raise InputError(
            f"These runs have different images or splits ({names}): scores of different images cannot be paired. "
            "Train them on the same folder with the same seed and split options."
        )
    rows = [sorted(run.scores("test"), key=lambda row: row.image_path) for run in runs]
    for run, its in zip(runs, rows, strict=True):
        if not its:
            raise InputError(f"{run.folder} has no test scores (status {run.status}).")
        if [row.image_path for row in its] != [row.image_path for row in rows[0]]:
            raise InputError(f"{run.folder.name} and {first.folder.name} list other test images.")
    return rows[0], columns(rows[0])[1], [columns(its)[0] for its in rows]


def comparison_table(found: Sequence[Compared]) -> None:
    """Print the comparison: AUROC, its interval, the difference to the best and whether it can be told from chance."""
    table = Table()
    for column in ("model", "run"):
        table.add_column(column, no_wrap=True)
    for column in ("image AUROC", "95 % interval", "below the best by", "p (Holm)", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found:
        interval = f"{one.interval.low:.3f} to {one.interval.high:.3f}" if one.interval.low is not None else "-"
        test = one.test
        difference = _difference(test) if test else ""
        verdict = "best" if test is None else ("tied with the best" if one.tied else "worse")
        p = "" if one.p is None else f"{one.p:.4f}"
        names = (one.run.folder.parent.parent.name, one.run.folder.name)
        table.add_row(*names, f"{one.image_auroc:.4f}", interval, difference, p, verdict)
    console = Console(width=max(Console().width, 140))
    console.print(table)
    count = sum(row.label >= 0 for row in found[0].run.scores("test"))
    console.print(
        f"{count} test images. DeLong's paired test against the best, p-values corrected for {len(found) - 1} "
        "comparisons (Holm); the best was picked on these images, which favours it.",
        soft_wrap=True,
    )


def _difference(test: PairedTest) -> str:
    around = f" ({test.low:.3f} to {test.high:.3f})" if test.low is not None else ""
    return f"{test.difference:.3f}{around}"
