"""Pictures and reports made again, or removed, after a run's thresholds changed."""

import json
import logging

import pytest
from helpers.runs import finished, run_with_maps

from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.visualization.renewal import mark_outdated, renew_visuals
from defectlab.visualization.report import write_report
from defectlab.visualization.result_files import write_result_files
from defectlab.visualization.run_panel import save_panel
from defectlab.visualization.segmentation import write_run_figures


@pytest.fixture
def run() -> Run:
    """A run with everything that can be drawn of it."""
    run = run_with_maps("one", 42, 6, 0.6, paths.project_root())
    save_panel(run)
    write_report([run], run.folder / "report.html")
    write_result_files(run, run.folder / "report")
    list(write_run_figures(run, run.folder / "report", "all"))
    return run


def change(run: Run, image: float | None, pixel: float | None) -> None:
    recorded = run.record.thresholds
    values = {"image": recorded.image.replaced(value=image), "pixel": recorded.pixel.replaced(value=pixel)}
    run.update(thresholds=values)


def contents(run: Run) -> dict[str, bytes]:
    files = [run.folder / "report.html", run.folder / "pictures.png", *(run.folder / "report").iterdir()]
    return {file.name: file.read_bytes() for file in files if file.is_file()}


def test_all_that_is_there_shows_the_new_thresholds(run: Run):
    before = contents(run)
    change(run, 0.9, 0.1)
    renewed = {file.name for file in renew_visuals(run)}
    after = contents(run)
    assert renewed == before.keys() == after.keys()
    same = {name for name in before if before[name] == after[name]}
    # neither depends on a threshold; labels were not written again here
    assert same == {"avg_score_by_label.csv", "test_predictions.csv"}
    assert json.loads(after["test_results.json"])["thresholds"]["image"]["value"] == 0.9


def test_what_was_never_made_is_not_made_now():
    run = run_with_maps("one", 42, 6, 0.6, paths.project_root())
    assert [file.name for file in renew_visuals(run)] == ["pictures.png"]
    assert not (run.folder / "report").exists()


def test_what_cannot_be_made_again_goes(run: Run, caplog: pytest.LogCaptureFixture):
    change(run, None, None)
    with caplog.at_level(logging.WARNING):
        renew_visuals(run)
    names = contents(run)
    assert "test_confusion_matrix.png" not in names
    assert not any("_val_" in name for name in names)
    assert "coins_val_0.png, which showed the thresholds of before" in caplog.text
    run.maps_path("test").unlink()
    renew_visuals(run)
    assert "pictures.png" not in contents(run)


def test_a_report_of_several_runs_names_those_that_changed_once(run: Run):
    other, stranger = run_with_maps("two", 43, 6, 0.6, paths.project_root()), finished("three")
    overall = write_report([run, other], paths.results_dir() / "report.html")
    whole = overall.read_text()
    assert not mark_outdated(overall, stranger)
    assert overall.read_text() == whole
    for _ in range(2):
        assert overall in renew_visuals(run)
    page = overall.read_text()
    assert page.count("were changed after this report was made") == 1
    assert f"The thresholds of {run.title} were" in page
