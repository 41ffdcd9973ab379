"""Pictures and reports made again, or marked, after a run's thresholds changed."""

import errno
import json
import logging

import pytest
from helpers.runs import finished, run_with_maps

from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.visualization import renewal, result_files
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
    list(write_result_files(run, run.folder / "report"))
    list(write_run_figures(run, run.folder / "report", "all"))
    return run


def change(run: Run, image: float | None, pixel: float | None) -> None:
    recorded = run.record.thresholds
    values = {"image": recorded.image.replaced(value=image), "pixel": recorded.pixel.replaced(value=pixel)}
    run.update(thresholds=values)


def contents(run: Run) -> dict[str, bytes]:
    files = [*run.folder.glob("report*.html"), *run.folder.glob("pictures*"), *(run.folder / "report").iterdir()]
    return {file.name: file.read_bytes() for file in files}


def outdated(name: str) -> str:
    stem, suffix = name.rsplit(".", 1)
    return f"{stem}.outdated.{suffix}"


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


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


def test_what_cannot_be_made_again_is_kept_and_marked_until_it_can(run: Run, caplog: pytest.LogCaptureFixture):
    before, thresholds = contents(run), run.record.thresholds
    change(run, None, None)
    with caplog.at_level(logging.WARNING):
        renew_visuals(run)
    after = contents(run)
    lost = {name for name in before if "_val_" in name} | {"test_confusion_matrix.png"}
    assert len(lost) > 2
    assert {name for name in after if ".outdated" in name} == {outdated(name) for name in lost}
    assert lost.isdisjoint(after)
    assert all(after[outdated(name)] == before[name] for name in lost)
    assert "coins_val_0.png showed the thresholds of before and cannot be made again: renamed to" in caplog.text
    change(run, thresholds.image.value, thresholds.pixel.value)
    assert {file.name for file in renew_visuals(run)} == before.keys()
    again = contents(run)
    assert all(again[name] == before[name] for name in lost)


def test_images_that_are_gone_and_a_full_disk_cost_no_picture(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    before = contents(run)
    last = max(paths.resolve(row.image_path) for row in run.scores("test"))
    last.unlink()
    monkeypatch.setattr(renewal, "write_report", full_disk)
    monkeypatch.setattr(result_files, "cumulative_figure", full_disk)
    change(run, 0.9, 0.1)
    made = {file.name for file in renew_visuals(run)}
    after = contents(run)
    assert {name.replace(".outdated", "") for name in after} == before.keys()
    assert "pictures.png" not in made or after["pictures.png"] != before["pictures.png"]
    assert {"test_results.json", "coins_val_0.png"} <= made, "what was made before the error counts as made"
    assert not made & {name.replace(".outdated", "") for name in after if ".outdated" in name}
    assert after["cumulative_histogram.outdated.png"] == before["cumulative_histogram.png"]
    assert "were changed after this report was made" in after["report.html"].decode()
    assert "report.html shows the thresholds of before and cannot be made again" in caplog.text
    change(run, 0.8, 0.1)
    monkeypatch.setattr(renewal, "mark_outdated", full_disk)
    renew_visuals(run)
    assert after["report.html"] == contents(run)["report.outdated.html"]


def test_pictures_whose_maps_were_dropped_are_kept(run: Run):
    before = contents(run)["pictures.png"]
    run.maps_path("test").unlink()
    renew_visuals(run)
    assert "pictures.png" not in contents(run)
    assert contents(run)["pictures.outdated.png"] == before


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
