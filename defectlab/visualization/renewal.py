"""Pictures and reports of a run made again after its thresholds changed, so that none shows what the old ones found."""

import html
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.utils.errors import DataError, InputError
from defectlab.utils.files import replacing
from defectlab.visualization.report import write_report
from defectlab.visualization.result_files import write_result_files
from defectlab.visualization.run_panel import PICTURES, save_panel
from defectlab.visualization.segmentation import run_figures_in, write_run_figures

logger = logging.getLogger(__name__)

BODY = "<body>\n"


def renew_visuals(run: Run) -> list[Path]:
    """Make the pictures and reports that a finished run has again, and return their paths.

    `pictures.png`, `report.html` and the files of `report/` in the run's folder are made again; what cannot be is
    removed, and the log says so. The project's report of several runs gets a line that names the run, if it is among
    them.
    """
    renewed = [_or_removed(run.folder / PICTURES, save_panel(run))]
    report, folder = run.folder / "report.html", run.folder / "report"
    if report.is_file():
        renewed.append(_or_removed(report, _attempted(lambda: write_report([run], report))))
    if (folder / "test_results.json").is_file():
        (folder / "test_confusion_matrix.png").unlink(missing_ok=True)  # made only where there is a threshold
        renewed += write_result_files(run, folder)
    figures = run_figures_in(run, folder)
    if figures:
        which = "all" if len(figures) > 1 else "first"
        written = _attempted(lambda: list(write_run_figures(run, folder, which))) or []
        renewed += [_or_removed(file, file if file in written else None) for file in figures]
    overall = paths.results_dir() / "report.html"
    if overall.is_file() and mark_outdated(overall, run):
        renewed.append(overall)
    return [file for file in renewed if file is not None]


def mark_outdated(report: Path, run: Run) -> bool:
    """Put a line at the top of a report of several runs that one of them has other thresholds now; False if it is not.

    The line is not repeated.
    """
    page = report.read_text(encoding="utf-8")
    if run.record.run_id not in page or BODY not in page:
        return False
    line = (
        f'<p class="wrong" id="outdated-{html.escape(run.record.run_id)}">The thresholds of {html.escape(run.title)} '
        "were changed after this report was made: what it says at them is of the old ones. Make it again "
        "(defectlab report, or training_code/compare.ipynb).</p>\n"
    )
    if line not in page:
        with replacing(report) as partial:
            partial.write_text(page.replace(BODY, BODY + line, 1), encoding="utf-8")
    return True


def _attempted(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (DataError, InputError, OSError) as error:
        logger.warning("%s", error)
        return None


def _or_removed(old: Path, new: Path | None) -> Path | None:
    if new is None and old.is_file():
        old.unlink()
        logger.warning(
            "Removed %s, which showed the thresholds of before and cannot be made again", paths.relative(old)
        )
    return new
