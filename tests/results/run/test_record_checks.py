"""Values of the right type that no record can have are named, and one such run stops none of the others."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs import finished, run_with_maps, scored

from defectlab.cli.records import experiment_table_of
from defectlab.results.comparison.runs import finished_runs, kinds_by_run, rankings_of
from defectlab.results.evaluate import evaluate_run
from defectlab.results.run.run import Run
from defectlab.results.workbook import update_workbook
from defectlab_runtime.errors import InputError


def damage(run: Run, *path: str, value: Any) -> None:
    """Write a value of run.json by its keys."""
    file = run.folder / "run.json"
    data = json.loads(file.read_text())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("name",), "../../other", "name is '../../other', not the name of a folder"),
        (("finished",), "yesterday", "finished is 'yesterday', not a date"),
        (("process", "started"), "9999-99-99", "process.started is '9999-99-99', not a date"),
        (("process", "pid"), 2**40, "process.pid is 1099511627776, not the number of a process"),
        (("process", "pid"), -1, "process.pid is -1, not the number of a process"),
        (("process", "born"), " ", "process.born is ' ', not the boot of a machine and a time"),
        (
            ("k_shots",),
            {"images": 3, "fits": [{"k": 0, "draw": 0, "seed": 1, "metrics": {}}]},
            r"k_shots.fits is \[0\], not fits with a number of images from 1",
        ),
        (("facts", "seed"), [1], r"facts.seed is \[1\], not a whole number"),
        (("experiment", "data", "passes"), "abc", "experiment.data.passes is 'abc', not a whole number from 1"),
        (("experiment", "data", "eval_batch_size"), 0, "experiment.data.eval_batch_size is 0, not a whole number"),
        (("experiment", "trainer", "max_epochs"), [1], r"experiment.trainer.max_epochs is \[1\], not a whole number"),
        (("preprocessing", "size"), [256], r"preprocessing.size is \[256\], not height and width"),
        (("preprocessing", "area"), {"box": [9, 0, 3, 3]}, r"preprocessing.area.box is \[9, 0, 3, 3\]"),
        (("evaluation", "grid"), [0, 16], r"evaluation.grid is \[0, 16\]"),
        (("dataset", "protocol", "group"), "(", "dataset.protocol.group is '\\(', not a regular expression"),
        (("dataset", "protocol", "mask_reading"), {"threshold": "x"}, "mask_reading is .*, not how masks are read"),
        (("metrics", "image_AUROC"), float("nan"), "metrics.image_AUROC is nan, no finite number"),
    ],
)
def test_a_value_that_no_record_has_is_named(path: tuple[str, ...], value: Any, message: str):
    run = finished("one")
    run.update(evaluation={"pixel_size": "input", "grid": [16, 16]})
    damage(run, *path, value=value)
    with pytest.raises(InputError, match=rf"run.json is damaged: .*{message}"):
        Run.open(run.folder)


def test_damaged_runs_are_named_and_left_out_of_everything_that_reads_many(
    own_project: Path, caplog: pytest.LogCaptureFixture
):
    good = [scored("near", 0.5, 0), scored("far", 2.0, 1)]
    deep, wrong, table = finished("deep"), finished("wrong"), scored("table", 1.0, 2)
    (deep.folder / "run.json").write_text("[" * 100_000)
    damage(wrong, "process", "pid", value=10**15)
    (table.folder / "scores.csv").write_bytes(b"image_path,split,defect,label,score,pred_label\na.png,test,x,7,1.0,1\n")
    with caplog.at_level(logging.WARNING):
        runs = finished_runs()
        rankings = rankings_of(runs)
    assert {run.folder.name for run in runs} == {"near", "far", "table"}
    assert {str(row["run"]) for one in rankings for entry in one.entries for row in entry.rows} >= {"near", "far"}
    assert set(kinds_by_run(runs)) >= {run.record.run_id for run in good}
    for name in ("deep", "wrong", "table"):
        assert f"{name}/" in caplog.text
    assert all(name in experiment_table_of([]) for name in ("near", "far"))
    outcome = update_workbook()
    assert outcome.written
    assert {str(row["run"]) for row in outcome.rows} >= {"near", "far"}
    assert deep.folder.is_dir()
    with pytest.raises(InputError, match="row 1: label '7' is none of -1, 0, 1"):
        table.scores()


@pytest.mark.parametrize("name", ["maps", "masks"])
def test_maps_that_lie_are_refused_before_they_are_read(own_project: Path, name: str):
    run = run_with_maps("one", 0, 12, 0.5, own_project)
    file = run.maps_path("test") if name == "maps" else run.masks_path("test")
    content = file.read_bytes()
    head, _, tail = content.partition(b"(12, 16,")
    claims = {
        "a terabyte": head + b"(12, 16, 1000000000000), }" + tail[tail.find(b"}") + 1 :],
        "an archive": b"PK\x03\x04" + bytes(500),
    }
    for what, lie in claims.items():
        file.write_bytes(lie)
        with pytest.raises(InputError, match="is damaged"):
            evaluate_run(run)
        assert what
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="is damaged"):
        evaluate_run(run)
    np.save(file, np.zeros((12, 16, 17), np.float64))
    with pytest.raises(InputError, match="is damaged"):
        evaluate_run(run)
