"""What the notebooks ask: which runs there are, and rankings as tables."""

import pytest
from helpers.runs import finished, measured

from defectlab.results.comparison.runs import finished_runs, kinds_by_run, ranked_runs, ranking_frame, rankings_of
from defectlab_runtime.errors import InputError


def test_finished_runs_are_found_and_their_absence_says_what_makes_them():
    with pytest.raises(InputError, match="There are no finished runs under results yet: run the training cells"):
        finished_runs()
    one, other = finished("one"), finished("two", dataset="bottle")
    unfinished = finished("three")
    unfinished.update(status="failed")
    assert {run.folder for run in finished_runs()} == {one.folder, other.folder}
    assert [run.folder for run in finished_runs("bottle")] == [other.folder]
    with pytest.raises(InputError, match=r"of plates \(there are some of bottle, coins\) under results"):
        finished_runs("plates")


def test_a_board_is_a_table_best_first_and_names_its_runs():
    runs = [measured("far", 3.0, 2), measured("best", 0.5, 0), measured("near", 0.55, 1)]
    without = finished("without", metrics={"image_AUROC": None})
    (ranking,) = rankings_of([*runs, without])
    frame = ranking_frame(ranking)
    assert frame["run"].tolist() == ["best", "near", "far", "without"]
    assert frame["verdict"].tolist() == ["best", "tied with the best", "worse", ""]
    assert frame.index.tolist() == [1, 2, 3, 4]
    assert "sd of seeds" not in frame
    assert [run.folder.name for run in ranked_runs(ranking, [*runs, without])] == ["best", "near", "far"]
    assert set(kinds_by_run(runs)) == {run.record.run_id for run in runs}
