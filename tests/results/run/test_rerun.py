"""Reruns that were killed, and machines that share a results folder."""

import errno
import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.killing import before_each_change, ended, fork
from helpers.runs import parts_of_a_record

from defectlab.results.run import folder_lock, ownership, rerun
from defectlab.results.run.location import CHECKPOINT
from defectlab.results.run.log import LOG, logged
from defectlab.results.run.ownership import OWNER, release
from defectlab.results.run.rerun import clear_all_leftovers
from defectlab.results.run.run import Run, find_runs
from defectlab_runtime.errors import BusyError, InputError

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
from pathlib import Path
{name}
from defectlab.results.run import run as module
from defectlab.results.run.run import Run
from defectlab_runtime.errors import BusyError
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


def test_a_rerun_that_takes_its_place_writes_on_in_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "defectlab")
    start(tmp_path).advance("finished")
    again = start(tmp_path)
    with logged(again):
        again.advance("finished")
    assert "Logging error" not in capsys.readouterr().err
    assert "Replaced the earlier run" in (again.folder / LOG).read_text()
    assert "what an ended rerun left" not in caplog.text


@pytest.mark.parametrize("name", ["r" * 250, "ä" * 125, "r" * 240], ids=len)
def test_a_run_whose_name_leaves_no_room_for_a_hidden_one_beside_it_is_run_again(tmp_path: Path, name: str):
    def again() -> Run:
        return Run.start(tmp_path, name, FACTS, parts_of_a_record())

    first = again()
    first.advance("finished", marker="first")
    parent = first.folder.parent
    first.folder.rename(parent / name)  # as a version without short names of folders called it
    for marker in ("second", "third"):
        rerun_ = again()
        assert rerun_.folder.name.startswith("." + name[:20])
        rerun_.advance("finished", marker=marker)
        assert rerun_.folder == parent / name
        assert [path.name for path in parent.iterdir() if path.is_dir()] == [name]
    assert Run.open(parent / name).record.extra["marker"] == "third"
    _left_long_ago(rerun._hidden(parent, name, "rerun"))  # by one killed as it had begun, another as it replaced
    (parent / name).rename(rerun._hidden(parent, name, "old"))
    rerun.clear_leftovers(parent, name, "running")
    assert [path.name for path in parent.iterdir() if path.is_dir()] == [name]
    _left_long_ago(rerun._hidden(parent, name, "rerun"))
    clear_all_leftovers(tmp_path)
    assert [path.name for path in parent.iterdir() if path.is_dir()] == [name]


def _left_long_ago(folder: Path) -> None:
    folder.mkdir()
    os.utime(folder, (0, 0))


def test_what_living_processes_use_or_someone_may_continue_stays(tmp_path: Path):
    first = start(tmp_path)
    first.advance("finished")
    own = start(tmp_path)
    own.advance("fitted")
    clear_all_leftovers(tmp_path)
    assert own.folder.is_dir(), "a notebook that has not tested yet"
    release(own.folder)
    own.update(process=own.record.process.replaced(pid=2**22 - 1))
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


def test_a_run_that_is_being_tested_is_not_replaced_by_a_process_that_starts_it_meanwhile(tmp_path: Path):
    """It was released when it was trained: another process trained anew and took its folder from under the test."""
    theirs = """
run = start()
run.advance("fitted")
print(flush=True)
sys.stdin.readline()
run.write_scores([])
run.advance("finished", marker="theirs")
"""
    process = subprocess.Popen(child(tmp_path, theirs, "b"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    with pytest.raises(BusyError, match=r"of b has trained this experiment into .*test it there, or end that process"):
        start(tmp_path)
    (trained,) = find_runs(tmp_path)
    with pytest.raises(BusyError, match="of b has trained"):
        trained.claim()
    process.communicate("\n")
    assert process.returncode == 0
    (run,) = find_runs(tmp_path)
    assert (run.status, run.record.extra["marker"]) == ("finished", "theirs")
    assert start(tmp_path).folder != run.folder, "a finished run may be run again"


def test_a_trained_run_whose_process_has_ended_is_tested_or_trained_anew_by_another(tmp_path: Path):
    def train() -> None:
        start(tmp_path).advance("fitted")

    assert ended(fork(train)) == 0
    (run,) = find_runs(tmp_path)
    run.claim()
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(child(tmp_path, "start()"), check=True, stderr=subprocess.DEVNULL)
    run.advance("finished", marker="tested")
    assert not (run.folder / OWNER).exists()
    subprocess.run(child(tmp_path, "start().advance('finished', marker='again')"), check=True)
    assert [run.record.extra["marker"] for run in find_runs(tmp_path)] == ["again"]


def test_of_two_reruns_of_a_trained_run_the_first_to_finish_stays_and_the_other_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def train() -> None:
        start(tmp_path).advance("fitted")

    assert ended(fork(train)) == 0
    ours = start(tmp_path)
    theirs = """
run = start()
print(flush=True)
sys.stdin.readline()
run.advance("fitted", marker="theirs")
print(run.folder.name, flush=True)
sys.stdin.readline()
run.advance("finished")
"""
    process = subprocess.Popen(child(tmp_path, theirs), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    ours.advance("fitted", marker="ours")
    assert ours.folder.name == "r"
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith(".r.rerun-"), "trained too, but this one is being tested"
    assert [run.record.extra["marker"] for run in find_runs(tmp_path)] == ["ours"]
    process.communicate("\n")
    assert process.returncode == 0
    with pytest.raises(InputError, match="another finished the same experiment meanwhile"), ours.recording_failure():
        ours.write_scores([])
    (run,) = find_runs(tmp_path)
    assert (run.status, run.record.extra["marker"]) == ("finished", "theirs")
    assert not (run.folder / "scores.csv").exists()


def machine(root: Path, name: str) -> None:
    """Start the run and finish it, as a machine of this name; another that runs it meanwhile is no error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: name)
        with suppress(BusyError):
            run = start(root)
            (run.folder / "manifest.json").write_text("{}")
            run.advance("fitted")
            run.update(tested=name)
            run.advance("finished", marker=name)


class Machine:
    """A machine that stands still before its N-th change of a file, until it is let go."""

    def __init__(self, root: Path, change: int) -> None:
        (self._told, told), (go, self._go) = os.pipe(), os.pipe()

        def stop(count: int) -> None:
            if count == change:
                os.write(told, b"s")
                os.read(go, 1)

        def run() -> None:
            before_each_change(root, stop)
            machine(root, "one")
            os.write(told, b"e")

        self._pid: int | None = fork(run)
        os.close(told)
        os.close(go)
        self.stands = os.read(self._told, 1) == b"s"

    def finish(self) -> None:
        """Let it go and wait for its end, which must be without an error."""
        if self._pid is not None:
            pid, self._pid = self._pid, None
            if self.stands:
                os.write(self._go, b"g")
            assert ended(pid) == 0
            os.close(self._go)
            os.close(self._told)


class NoFileLock:
    """The lock of a drive that has none."""

    def __init__(self, path: Path) -> None:
        pass

    def acquire(self) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    "before", ["nothing", "a finished run", "a killed run", pytest.param("a killed rerun", marks=pytest.mark.long)]
)
def test_machines_without_file_locks_that_meet_at_any_change_of_a_file_leave_one_whole_run(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(folder_lock, "FileLock", NoFileLock)
    monkeypatch.setattr(ownership, "WATCH_SECONDS", 0.0)
    stands, change, waited = True, 0, 0
    while stands:
        root = tmp_path / str(change)
        if before in ("a finished run", "a killed rerun"):
            start(root).advance("finished", marker="before")
        if "killed" in before:
            assert ended(fork(lambda root=root: start(root))) == 0
            for owner in root.glob(f"*/*/*/{OWNER}"):
                os.utime(owner, (1, 1))
        one = Machine(root, change)

        def wait(one: Machine = one) -> None:
            nonlocal waited
            waited += 1
            one.finish()

        monkeypatch.setattr(folder_lock, "pause", wait)
        machine(root, "two")
        one.finish()
        (run,) = find_runs(root)
        assert run.status == "finished"
        assert run.record.extra["marker"] in ("one", "two")
        assert run.record.extra["tested"] == run.record.extra["marker"]
        assert (run.folder / "manifest.json").is_file()
        clear_all_leftovers(root)
        assert [path.name for path in run.folder.parent.iterdir()] == ["r"]
        stands, change = one.stands, change + 1
    assert change > 20
    assert waited > 5


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

    looks = iter([None])

    def killed(_: Path) -> None:
        for look in looks:
            return look
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rerun, "find_record", killed)
        with pytest.raises(KeyboardInterrupt):
            rerun.take_place(new, finished.folder, None)
    assert not finished.folder.exists()
    clear_all_leftovers(tmp_path)
    assert Run.open(finished.folder).record.extra["marker"] == "theirs"
