"""What the workbook says beyond the records' numbers: leaderboard, kinds of defect, explanations."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from openpyxl import Workbook

from defectlab import paths
from defectlab.results.kinds import KindResult, kinds_of
from defectlab.results.leaderboard import leaderboards
from defectlab.results.record import Run
from defectlab.results.ties import TestScores, read_test_scores
from defectlab.results.workbook.about_sheet import write_about
from defectlab.results.workbook.board_sheet import write_leaderboard
from defectlab.results.workbook.defects_sheet import write_per_defect
from defectlab.results.workbook.generated import ABOUT, LEADERBOARD, PER_DEFECT, put_back, seal
from defectlab.results.workbook.rows import Row

logger = logging.getLogger(__name__)


def write_derived(
    book: Workbook, places: dict[str, int], rows: Sequence[Row], runs: Mapping[str, Run], workbook: Path
) -> None:
    """Write the generated sheets, each where it was (`places`); every scores.csv is read once."""
    scores = {key: _scores(run) for key, run in runs.items()}
    kinds = {key: _kinds(run, scores[key]) for key, run in runs.items()}
    boards = leaderboards(rows, runs, scores)
    sheets = put_back(book, places)
    write_leaderboard(sheets[LEADERBOARD], boards, workbook)
    write_per_defect(sheets[PER_DEFECT], boards, kinds)
    write_about(sheets[ABOUT], boards)
    seal(book, list(sheets.values()))


def _scores(run: Run) -> TestScores | None:
    try:
        return read_test_scores(run)
    except (OSError, ValueError, KeyError, IndexError) as error:
        logger.warning(
            "The scores of %s cannot be read (%r): its ties are not tested", paths.relative(run.folder), error
        )
        return None


def _kinds(run: Run, scores: TestScores | None) -> list[KindResult]:
    try:
        return kinds_of(run, scores)
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("%s has no readable kinds of defect (%r)", paths.relative(run.folder), error)
        return []
