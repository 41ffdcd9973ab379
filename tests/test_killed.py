"""Processes killed at every change of a file, and commands killed at random moments: nothing finished is lost."""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.killing import KILLED, check_files, count_changes, dies_at, ended, fork, hidden_folders, killed_after
from helpers.runs import finished, parts_of_a_record
from helpers.sweeps import SMALL_GRID, comparable_rows, settings

from defectlab.results.run.arrays import ArrayWriter
from defectlab.results.run.ownership import EXPIRY_SECONDS, OWNER
from defectlab.results.run.rerun import clear_all_leftovers
from defectlab.results.run.run import Run, find_runs
from defectlab.results.workbook import read_workbook, update_workbook
from defectlab_runtime.scores import ScoreRow

MOMENTS = int(os.environ.get("DEFECTLAB_KILLS", "200"))


def write_run(home: Path, marker: str) -> None:
    """Write what a training and a test write, and the workbook's row."""
    run = Run.start(home / "results", "r", {"seed": 1}, parts_of_a_record())
    run.checkpoint.parent.mkdir(parents=True)
    run.checkpoint.write_bytes(b"weights")
    maps = ArrayWriter(run.maps_path("test"), 3, (2, 2), "float32")
    maps.append(np.ones((2, 2, 2), np.float32))
    maps.close()
    run.write_scores([ScoreRow("a.png", "test", "good", 0, 0.5, 0), ScoreRow("b.png", "test", "blot", 1, 1.5, 1)])
    run.advance("fitted", marker=marker)
    run.advance("finished", metrics={"image_AUROC": 1.0})


def test_a_first_run_killed_at_any_change_of_a_file_is_made_anew(own_project: Path):
    changes = count_changes(lambda: write_run(own_project / "count", "1"), own_project / "count")
    assert changes > 20
    for change in range(changes):
        home = own_project / f"home{change}"

        def die(home: Path = home, change: int = change) -> None:
            dies_at(change, home)
            write_run(home, "killed")

        assert ended(fork(die)) == KILLED
        check_files(home)
        assert ended(fork(lambda home=home: write_run(home, "again"))) == 0
        (run,) = find_runs(home / "results")
        assert run.record.extra["marker"] in ("killed", "again")
        assert run.status == "finished"
        assert len(check_files(home)) == 1
        assert_no_leftovers(home)


def test_a_rerun_killed_at_any_change_of_a_file_loses_no_finished_run(own_project: Path):
    first = own_project / "first"
    write_run(first, "first")
    shutil.copytree(first, own_project / "count")
    changes = count_changes(lambda: write_run(own_project / "count", "second"), own_project / "count")
    between = 0  # kills between the two renames, after which the earlier run is restored
    for change in range(changes):
        home = own_project / f"home{change}"
        shutil.copytree(first, home)

        def die(home: Path = home, change: int = change) -> None:
            dies_at(change, home)
            write_run(home, "second")

        assert ended(fork(die)) == KILLED
        between += not find_runs(home / "results")
        clear_all_leftovers(home / "results")
        (run,) = find_runs(home / "results")
        assert run.status == "finished"
        assert len(check_files(home)) == 1
        assert (run.maps_path("test").is_file(), run.checkpoint.is_file(), len(run.scores())) == (True, True, 2)
        assert len([name for name in hidden_folders(home) if name.startswith(".r.")]) <= 1, (
            "one that is trained stays for a day"
        )
        assert ended(fork(lambda home=home: write_run(home, "third"))) == 0
        assert [run.record.extra["marker"] for run in find_runs(home / "results")] == ["third"]
        assert_no_leftovers(home)
    assert between >= 1


def test_a_workbook_writer_killed_at_any_change_of_a_file_leaves_it_whole(own_project: Path):
    runs = [finished(f"run_{number}") for number in range(2)]
    update_workbook(runs[0])
    book = own_project / "models_comparing.xlsx"
    before = book.read_bytes()
    changes = count_changes(lambda: update_workbook(runs[1]), own_project)
    for change in range(changes):
        book.write_bytes(before)

        def die(change: int = change) -> None:
            dies_at(change, own_project)
            update_workbook(runs[1])

        assert ended(fork(die)) == KILLED
        assert {row["run"] for row in read_workbook()} >= {"run_0"}
        assert update_workbook().written
        assert {row["run"] for row in read_workbook()} == {"run_0", "run_1"}
    assert not list(own_project.glob(".models_comparing.xlsx.*.part"))


def command(home: Path, *arguments: str) -> Callable[[], None]:
    """A command in a project of its own, for a forked process."""

    def execute() -> None:
        from defectlab.cli import main

        os.environ["DEFECTLAB_HOME"] = str(home)
        os.chdir(home)
        if main(arguments):
            os._exit(3)

    return execute


@pytest.mark.long
def test_commands_killed_at_200_random_moments_lose_nothing_and_end_in_the_same_workbook(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import torch

    import defectlab.cli.main
    import defectlab.engine.engine
    import defectlab.sweeps.sweep  # noqa: F401  (in the forked copies these are then loaded)

    torch.set_num_threads(1)  # threads do not survive a fork
    sweep = settings(parts, grid=SMALL_GRID)
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep))
    train = ["train", "--data.root", str(parts), "--data.num_workers", "0", "--backbone.name", "resnet18"]
    train += ["--backbone.weights", "random", "--model.name", "padim", "--model.image_size", "[64,64]"]
    train += ["--trainer.accelerator", "cpu", "--name", "run"]
    run = ["--run", "results/Padim/parts/run"]
    empty, trained = tmp_path / "empty", tmp_path / "trained"
    empty.mkdir()
    trained.mkdir()
    assert ended(fork(command(trained, *train))) == 0
    stale = tmp_path / "stale"  # records whose workbook is missing
    shutil.copytree(trained, stale)
    (stale / "models_comparing.xlsx").unlink()
    kinds = {
        "train": (empty, train),
        "train again": (trained, train),
        "test": (trained, ["evaluate", run[1], "--rescore"]),
        "threshold": (trained, ["threshold", *run, "--rule", "quantile", "--false-alarm-rate", "0.1"]),
        "sweep": (empty, ["sweep", "--config", str(file)]),
        "compare": (stale, ["compare"]),
    }
    seconds, whole, kills = {}, {}, dict.fromkeys(kinds, 0)
    for kind, (state, arguments) in kinds.items():
        home = tmp_path / f"whole {kind}"
        shutil.copytree(state, home)
        begun = time.monotonic()
        assert ended(fork(command(home, *arguments))) == 0, kind
        seconds[kind] = time.monotonic() - begun
        whole[kind] = rows(home)
    draw = random.Random(17)
    for number in range(MOMENTS):
        kind = list(kinds)[number % len(kinds)]
        state, arguments = kinds[kind]
        home = tmp_path / f"home {number}"
        shutil.copytree(state, home)
        before = check_files(home)
        for _ in range(draw.choice((1, 1, 2))):
            code = killed_after(command(home, *arguments), draw.uniform(0, seconds[kind]))
            kills[kind] += code == -9
            assert ended(fork(command(home, "compare"))) == 0, (number, kind)
            assert check_files(home) >= before, (number, kind)
        assert ended(fork(command(home, *arguments))) == 0, (number, kind)
        assert ended(fork(command(home, "compare"))) == 0
        assert rows(home) == whole[kind], (number, kind)
        assert_no_leftovers(home)
        shutil.rmtree(home)
    print(f"killed: {kills}, of {MOMENTS} trials")
    assert sum(kills.values()) >= MOMENTS // 2


def assert_no_leftovers(home: Path) -> None:
    """Nothing is left but, for a quarter of an hour, folders whose process died before it could name itself."""
    for name in hidden_folders(home):
        (folder,) = home.glob(f"results/*/*/{name}")
        assert {file.name for file in folder.iterdir()} <= {OWNER}
        assert sum(file.stat().st_size for file in folder.iterdir()) == 0
        for path in (*folder.iterdir(), folder):
            os.utime(path, (time.time() - 2 * EXPIRY_SECONDS,) * 2)
    clear_all_leftovers(home / "results")
    assert hidden_folders(home) == []


def rows(home: Path) -> list[dict[str, Any]]:
    return comparable_rows(read_workbook(home / "models_comparing.xlsx"), "checkpoint_MB")


@pytest.mark.long
def test_ten_writers_of_one_workbook_killed_at_random_moments_lose_no_run(own_project: Path):
    draw = random.Random(17)

    def add(who: int, turn: int) -> None:
        for number in range(50):
            update_workbook(finished(f"run {turn} {who} {number}"))

    for turn in range(max(1, MOMENTS // 20)):
        writers = [fork(lambda who=who, turn=turn: add(who, turn)) for who in range(10)]
        for pid in draw.sample(writers, len(writers)):
            time.sleep(draw.uniform(0, 0.5))
            os.kill(pid, 9)
            assert ended(pid) == -9
        done = check_files(own_project)
        assert update_workbook().written
        assert {row["run_id"] for row in read_workbook()} == done
