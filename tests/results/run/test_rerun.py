"""Reruns that were killed, and machines that share a results folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.runs import parts_of_a_record

from defectlab.results.run import rerun
from defectlab.results.run.location import CHECKPOINT
from defectlab.results.run.ownership import OWNER
from defectlab.results.run.rerun import clear_all_leftovers
from defectlab.results.run.run import Run, find_runs

FACTS = {"seed": 1}


def start(root: Path) -> Run:
    return Run.start(root, "r", FACTS, parts_of_a_record())


def hidden(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "Patchcore/bottle").iterdir() if path.name.startswith(".r."))


def child(root: Path, code: str, host: str | None = None) -> list[str]:
    """The command of a process, by name of another machine if `host`, that starts the run and executes `code`."""
    name = f"socket.gethostname = lambda: {host!r}" if host else ""
    text = f"""
import os, signal, socket, sys
from contextlib import nullcontext
from pathlib import Path
{name}
from defectlab.results.run import run as module
from defectlab.results.run.run import Run
from defectlab.utils.errors import BusyError
def start():
    return Run.start(Path({str(root)!r}), "r", {FACTS!r}, {parts_of_a_record()!r})
{code}
"""
    return [sys.executable, "-c", text]


CHECKPOINT_AND_KILL = f"""
run = start()
(run.folder / {CHECKPOINT!r}).parent.mkdir(parents=True)
(run.folder / {CHECKPOINT!r}).write_bytes(b"x")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_rerun_with_a_checkpoint_goes_with_the_next_run_or_with_compare(tmp_path: Path):
    start(tmp_path).advance("finished", marker="first")
    subprocess.run(child(tmp_path, CHECKPOINT_AND_KILL), check=False)
    assert len(hidden(tmp_path)) == 1
    again = start(tmp_path)
    assert len(hidden(tmp_path)) == 2, "training could continue from that checkpoint until the new one is as far"
    again.advance("finished", marker="second")
    assert hidden(tmp_path) == []
    subprocess.run(child(tmp_path, CHECKPOINT_AND_KILL), check=False)
    clear_all_leftovers(tmp_path)
    assert hidden(tmp_path) == []
    assert [run.record.extra["marker"] for run in find_runs(tmp_path)] == ["second"]


def test_what_living_processes_use_or_someone_may_continue_stays(tmp_path: Path):
    first = start(tmp_path)
    first.advance("finished")
    own = start(tmp_path)
    own.advance("fitted")
    clear_all_leftovers(tmp_path)
    assert own.folder.is_dir(), "a notebook that has not tested yet"
    process = own.record.process
    own.update(process=process.replaced(pid=2**22 - 1))
    clear_all_leftovers(tmp_path)
    assert own.folder.is_dir(), "trained: its checkpoint can be tested for a day"
    own.update(status="running")
    clear_all_leftovers(tmp_path)
    assert hidden(tmp_path) == []


def test_checkpoints_of_an_experiment_that_never_finished_stay_with_compare(tmp_path: Path):
    for _ in range(2):
        subprocess.run(child(tmp_path, CHECKPOINT_AND_KILL), check=False)
    assert len(hidden(tmp_path)) == 1
    clear_all_leftovers(tmp_path)
    assert len(hidden(tmp_path)) == 1


def test_two_machines_on_one_results_folder_leave_each_other_alone(tmp_path: Path):
    start(tmp_path).advance("finished", marker="first")
    theirs = """
run = start()
(run.folder / "manifest.json").write_text("{}")
print(run.folder.name, flush=True)
sys.stdin.readline()
run.advance("finished", marker="theirs")
print(sorted(path.name for path in run.folder.iterdir()))
"""
    process = subprocess.Popen(child(tmp_path, theirs, "b"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    name = process.stdout.readline().strip()
    ours = start(tmp_path)
    clear_all_leftovers(tmp_path)
    assert name in hidden(tmp_path)
    ours.advance("finished", marker="ours")
    assert name in hidden(tmp_path)
    assert process.communicate("\n")[0].strip() == "['manifest.json', 'run.json']"
    assert [run.record.extra["marker"] for run in find_runs(tmp_path)] == ["theirs"]
    assert hidden(tmp_path) == []


@pytest.mark.long
def test_machines_without_locks_start_and_replace_one_run_at_the_same_moment(tmp_path: Path):
    race = """
module.locked = lambda parent: nullcontext()
print("ready", flush=True)
sys.stdin.readline()
for turn in range(8):
    try:
        run = start()
    except BusyError:
        print("busy")
    else:
        print("began")
        (run.folder / "manifest.json").write_text("{}")
        run.advance("finished", marker=socket.gethostname())
"""
    racers = [
        subprocess.Popen(child(tmp_path, race, f"host{i}"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(3)
    ]
    for process in racers:
        process.stdout.readline()
    for process in racers:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0].split() for process in racers]
    assert [process.returncode for process in racers] == [0, 0, 0]
    assert all(len(words) == 8 for words in said)
    runs = find_runs(tmp_path)  # one; without locks seldom a second whole one of the same run_id, under its hash
    assert {run.record.run_id for run in runs} == {runs[0].record.run_id}
    assert {run.status for run in runs} == {"finished"}
    assert all((run.folder / "manifest.json").is_file() for run in runs)
    assert hidden(tmp_path) == []


def test_an_earlier_finished_run_is_not_deleted_for_one_that_only_began(tmp_path: Path):
    run = start(tmp_path)
    run.advance("finished", marker="first")
    old = run.folder.with_name(".r.old-1")
    run.folder.rename(old)
    again = start(tmp_path)  # restores the earlier run: the new one is a rerun
    assert again.folder != run.folder
    run.folder.rename(old)
    again.folder.rename(run.folder)
    clear_all_leftovers(tmp_path)
    assert json.loads((old / "run.json").read_text())["status"] == "finished"


def test_a_folder_without_record_is_left_to_whoever_just_makes_it(tmp_path: Path):
    start(tmp_path).advance("finished")
    folder = tmp_path / "Patchcore/bottle/.r.rerun-1234"
    folder.mkdir()
    clear_all_leftovers(tmp_path)
    assert folder.is_dir()
    (folder / OWNER).write_text(json.dumps({"pid": 2**22 - 1, "host": "x", "started": ""}))
    clear_all_leftovers(tmp_path)
    assert folder.is_dir(), "another machine's, of this moment"


def test_a_run_moved_away_for_a_look_is_restored_if_the_process_dies_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another run took the place between the decision and the rename: it must not count as one being deleted."""
    finished = start(tmp_path)
    finished.advance("finished", marker="theirs")
    new = rerun.make_rerun_folder(finished.folder.parent, "r")

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rerun, "find_record", killed)
        with pytest.raises(KeyboardInterrupt):
            rerun.take_place(new, finished.folder, None)
    assert not finished.folder.exists()
    clear_all_leftovers(tmp_path)
    assert Run.open(finished.folder).record.extra["marker"] == "theirs"
