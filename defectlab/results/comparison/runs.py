"""Listing, ranking and tabulating finished runs for notebooks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from defectlab.results.comparison.ranking import RANKED_BY, SHOWN_METRICS, Entry, Ranking, rank_rows
from defectlab.results.comparison.significance import find_test_scores
from defectlab.results.run.category_run import each_alone
from defectlab.results.run.run import Run, find_runs
from defectlab.results.workbook_row import FINISHED, KEY, row_of
from defectlab.utils import paths
from defectlab_runtime.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
from dataclasses import dataclass

from defectlab.results.comparison.significance import TestScores
from defectlab.results.curves import kinds_of_columns


@dataclass(frozen=True)
class KindResult:
    """Results of one kind of test image: counts of all and of flagged images, and AUROCs against good images."""

    defect: str
    label: int
    count: int
    flagged: int | None
    image_auroc: float | None
    pixel_auroc: float | None


def finished_runs(dataset: str | None = None) -> list[Run]:
    """Return the finished runs under results/, oldest first, of one dataset if `dataset` is given.

    Raises:
        InputError: There are none yet; says what makes some.
    """
    runs = [run for run in find_runs() if run.status == FINISHED]
    of_it = [run for run in runs if dataset in (None, run.record.dataset.name)]
    if of_it:
        return of_it
    there = ", ".join(sorted({run.record.dataset.name for run in runs}))
    what = f"of {dataset} (there are some of {there})" if runs else ""
    raise InputError(
        f"There are no finished runs {what} under {paths.relative(paths.results_dir())} yet".replace("  ", " ")
        + ": run the training cells of training_code/padim.ipynb and training_code/patchcore.ipynb, or `make demo`."
    )


def rankings_of(runs: Sequence[Run]) -> list[Ranking]:
    """Rank runs by image AUROC within each dataset, split and pixel size, with tests against the best.

    A run that serves several categories stands in the ranking of each of these.
    """
    runs = each_alone(runs)
    by_id = {run.record.run_id: run for run in runs}
    scores = {name: find_test_scores(run) for name, run in by_id.items()}
    return rank_rows([row_of(run) for run in runs], by_id, scores)


def ranked_runs(ranking: Ranking, runs: Sequence[Run]) -> list[Run]:
    """Return the runs of a ranking that have an image AUROC, so that they can be tested against each other."""
    ranked = [entry for entry in ranking.entries if RANKED_BY in entry.spreads]
    by_id = {run.record.run_id: run for run in each_alone(runs)}
    return [by_id[str(row[KEY])] for entry in ranked for row in entry.rows if str(row[KEY]) in by_id]


def kinds_by_run(runs: Sequence[Run]) -> dict[str, list[KindResult]]:
    """Return each run's results by kind of test image, keyed by run id; of several categories each one's."""
    return {run.record.run_id: kinds_of(run, find_test_scores(run)) for run in each_alone(runs)}


def ranking_frame(ranking: Ranking) -> "pd.DataFrame":
    """Return a ranking as a table with one row for each configuration, best first."""
    import pandas as pd

    frame = pd.DataFrame([_row(entry) for entry in ranking.entries], index=range(1, len(ranking.entries) + 1))
    unused = [column for column in ("p (corrected)", "sd of seeds") if frame[column].isna().all()]
    return frame.drop(columns=unused)


def _row(entry: Entry) -> dict[str, object]:
    values = entry.values()
    columns = (
        "model",
        "weights",
        "run",
        RANKED_BY,
        "95% low",
        "95% high",
        "p (corrected)",
        "sd of seeds",
        *SHOWN_METRICS,
    )
    row = {"dataset": values["dataset"], "verdict": entry.verdict, "test images": entry.images}
    row |= {column: values[column] for column in columns[:3]} | {"seeds": len(entry.rows)}
    row |= {column: values[column] for column in columns[3:]}
    return row | {"weights": entry.weights, "fit s": values["fit_seconds"], "images/s": values["images/s"]}


def kinds_of(run: Run, scores: TestScores | None) -> list[KindResult]:
    """Return a run's results by kind of test image, good images first, from its record or else its scores."""
    recorded = run.record.per_defect
    found = [
        KindResult(one.defect, one.label, one.count, one.flagged, one.image_auroc, one.pixel_auroc) for one in recorded
    ] or _computed(run, scores)
    return sorted(found, key=lambda kind: (kind.label, kind.defect))


def _computed(run: Run, scores: TestScores | None) -> list[KindResult]:
    if scores is None:
        return []
    threshold = run.record.thresholds.image.value
    kinds = kinds_of_columns(scores.defects, scores.labels, scores.scores, threshold, scores.groups)
    return [KindResult(kind.defect, kind.label, kind.count, kind.flagged, kind.auroc, None) for kind in kinds]
