"""What a notebook asks about many runs: which are there, who is best, which can be compared."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from defectlab import paths
from defectlab.errors import InputError
from defectlab.results.charts import interval_chart
from defectlab.results.kinds import KindResult, kinds_of
from defectlab.results.leaderboard import RANKED_BY, SHOWN, Board, Entry, leaderboards
from defectlab.results.record import Run, find_runs
from defectlab.results.ties import read_test_scores
from defectlab.results.workbook.rows import FINISHED, KEY, row_of

if TYPE_CHECKING:
    import pandas as pd


def finished_runs(dataset: str | None = None) -> list[Run]:
    """Return the finished runs under results/, oldest first; those of one dataset where it is named.

    Raises:
        InputError: There are none yet; says what makes some.
    """
    runs = [run for run in find_runs() if run.status == FINISHED]
    of_it = [run for run in runs if dataset in (None, run.record["dataset"]["name"])]
    if of_it:
        return of_it
    there = ", ".join(sorted({run.record["dataset"]["name"] for run in runs}))
    what = f"of {dataset} (there are some of {there})" if runs else ""
    raise InputError(
        f"There are no finished runs {what} under {paths.relative(paths.results_dir())} yet".replace("  ", " ")
        + ": run the training cells of training_code/padim.ipynb and training_code/patchcore.ipynb, or `make demo`."
    )


def boards_of(runs: Sequence[Run]) -> list[Board]:
    """Rank runs by image AUROC within each dataset, split and pixel size, with ties; every scores.csv is read once."""
    by_id = {run.record["run_id"]: run for run in runs}
    scores = {name: read_test_scores(run) for name, run in by_id.items()}
    return leaderboards([row_of(run) for run in runs], by_id, scores)


def runs_on(board: Board, runs: Sequence[Run]) -> list[Run]:
    """Return the runs of a board that have an image AUROC, so that they can be tested against each other."""
    ranked = [entry for entry in board.entries if RANKED_BY in entry.spreads]
    by_id = {run.record["run_id"]: run for run in runs}
    return [by_id[str(row[KEY])] for entry in ranked for row in entry.rows if str(row[KEY]) in by_id]


def kinds_by_run(runs: Sequence[Run]) -> dict[str, list[KindResult]]:
    """Return each run's kinds of test image by its id."""
    return {run.record["run_id"]: kinds_of(run, read_test_scores(run)) for run in runs}


def board_frame(board: Board) -> "pd.DataFrame":
    """Return a board as a table, a configuration a row, best first."""
    import pandas as pd

    frame = pd.DataFrame([_row(entry) for entry in board.entries], index=range(1, len(board.entries) + 1))
    unused = [column for column in ("p (Holm)", "sd of seeds") if frame[column].isna().all()]
    return frame.drop(columns=unused)


def board_chart(board: Board) -> str:
    """Return the image AUROC of each configuration with its interval, as SVG text."""
    ranked: dict[str, tuple[float, float | None, float | None]] = {}
    for entry in board.entries:
        if RANKED_BY in entry.spreads:
            name = f"{entry.rows[0].get('model', '')} {entry.name}"
            name += f" {entry.rows[0][KEY]}" if name in ranked else ""
            ranked[name] = entry.spreads[RANKED_BY].mean, entry.interval.low, entry.interval.high
    return interval_chart(ranked, f"{board.group[0]}: image AUROC, 95 % interval over images")


def _row(entry: Entry) -> dict[str, object]:
    spread = entry.spreads.get(RANKED_BY)
    return {
        "verdict": entry.verdict,
        "model": entry.rows[0].get("model"),
        "weights": entry.weights,
        "run": entry.name,
        "seeds": len(entry.rows),
        RANKED_BY: entry.mean(RANKED_BY),
        "95% low": entry.interval.low,
        "95% high": entry.interval.high,
        "p (Holm)": entry.p,
        "sd of seeds": spread.deviation if spread else None,
        **{metric: entry.mean(metric) for metric in SHOWN if metric != RANKED_BY},
        "fit s": entry.mean("fit_seconds"),
        "images/s": entry.images_per_second,
    }
