"""Pictures and reports of a run made again, or marked, after its thresholds changed."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.utils.files import replacing
from defectlab.visualization.report import write_report
from defectlab.visualization.result_files import AT_THRESHOLDS, write_result_files
from defectlab.visualization.run_panel import PICTURES, save_panel
from defectlab.visualization.segmentation import run_figures_in, write_run_figures
from defectlab_runtime import names
from defectlab_runtime.errors import DataError, InputError

logger = logging.getLogger(__name__)

BODY = "<body>\n"
OUTDATED = ".outdated"  # before the suffix of a file that shows thresholds of before and cannot be made again


def renew_visuals(run: Run) -> list[Path]:
    """Make the pictures and reports that a finished run has again, and return their paths.

    These are `pictures.png`, `report.html` and the files of `report/` in the run's folder. What cannot be made again
    (images or maps that are gone, a full disk) is kept and marked, and the log says so: a report gets a line that names
    the run, another file becomes NAME.outdated.png. The project's report of several runs gets such a line too, if the
    run is among them.
    """
    picture, report, folder = run.folder / PICTURES, run.folder / "report.html", run.folder / "report"
    figures = sorted({_without_mark(file) for file in run_figures_in(run, folder)})
    made = _attempted(lambda: filter(None, [save_panel(run)]))
    if _was_made(report):
        made += _attempted(lambda: [write_report([run], report)])
    if _was_made(folder / "test_results.json"):
        made += _attempted(lambda: write_result_files(run, folder))
    if figures:
        made += _attempted(lambda: write_run_figures(run, folder, "all" if len(figures) > 1 else "first"))
    for file in (picture, report, *(folder / name for name in AT_THRESHOLDS), *figures):
        if file.is_file() and file not in made:
            _keep_as_outdated(file, run)
    overall = paths.results_dir() / "report.html"
    if overall.is_file() and _marked(overall, run):
        made.append(overall)
    return made


def mark_outdated(report: Path, run: Run) -> bool:
    """Put a line at the top of a report of several runs that one of them has other thresholds now; False if it is not.

    The line is not repeated.
    """
    page = report.read_text(encoding="utf-8")
    if run.record.run_id not in page or BODY not in page:
        return False
    line = (
        f'<p class="wrong" id="outdated-{names.html(run.record.run_id)}">The thresholds of {names.html(run.title)} '
        "were changed after this report was made: what it says at them is of the old ones. Make it again "
        "(defectlab report, or training_code/compare.ipynb).</p>\n"
    )
    if line not in page:
        with replacing(report) as partial:
            partial.write_text(page.replace(BODY, BODY + line, 1), encoding="utf-8")
    return True


def _attempted(make: Callable[[], Iterable[Path]]) -> list[Path]:
    """Return the files that were made before an error, if any, which is logged."""
    made = []
    try:
        for file in make():
            made.append(file)  # noqa: PERF402 - what came before an error is kept
    except (DataError, InputError, OSError) as error:
        logger.warning("%s", error)
    return made


def _keep_as_outdated(file: Path, run: Run) -> None:
    """Mark a file that cannot be made again. Nothing is removed: after an undo it may be right again."""
    name = paths.relative(file)
    if file.suffix == ".html" and _marked(file, run):
        logger.warning("%s shows the thresholds of before and cannot be made again: its first line says so now", name)
        return
    try:
        kept = file.replace(_with_mark(file))
    except OSError as error:
        logger.warning("%s shows the thresholds of before, and cannot be made again or renamed: %s", name, error)
    else:
        logger.warning("%s showed the thresholds of before and cannot be made again: renamed to %s", name, kept.name)


def _marked(report: Path, run: Run) -> bool:
    try:
        return mark_outdated(report, run)
    except OSError as error:
        logger.warning("%s shows the thresholds of before and cannot be marked: %s", paths.relative(report), error)
        return False


def _was_made(file: Path) -> bool:
    return file.is_file() or _with_mark(file).is_file()


def _with_mark(file: Path) -> Path:
    return file.with_name(f"{file.stem}{OUTDATED}{file.suffix}")


def _without_mark(file: Path) -> Path:
    return file.with_name(f"{file.stem.removesuffix(OUTDATED)}{file.suffix}")
