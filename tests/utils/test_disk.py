"""A disk that is full, read-only, forbidden or broken ends a write with a message, and changes nothing."""

import errno
import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import parts_of_a_record
from safetensors.numpy import save_file

from defectlab.results.run.arrays import ArrayWriter
from defectlab.results.run.run import Run
from defectlab.results.workbook import read_workbook, update_workbook
from defectlab.utils.disk import DiskError, disk_errors, explain
from defectlab.utils.files import replacing, write_csv, write_json
from defectlab_runtime.errors import InputError

ROOT = Path(__file__).parents[2]
CODES = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "quota",
    errno.EFBIG: "of this size",
    errno.EROFS: "only be read",
    errno.EACCES: "may not write",
    errno.EPERM: "may not write",
    errno.EIO: "does not answer",
}


@pytest.mark.parametrize("code", CODES)
def test_every_error_of_a_disk_is_explained_and_the_file_stays(tmp_path: Path, code: int):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(DiskError, match=CODES[code]) as caught:
        _replaced(file, partial(_write_half, code))
    assert caught.value.errno == code
    assert str(file) in str(caught.value)
    assert "Disk: /" in str(caught.value)
    assert "DEFECTLAB_RESULTS" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text() == '{\n  "a": 1\n}\n'


def test_what_is_free_and_needed_is_said(tmp_path: Path):
    found = explain(OSError(errno.ENOSPC, "x"), tmp_path / "a", needed=2_500_000)
    assert "free, 2.5 MB needed" in str(found)


def test_a_file_that_may_not_be_read_is_not_said_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "closed" / "model.ckpt"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    refused = PermissionError(errno.EACCES, "Permission denied", str(file))
    for closed in (file, file.parent):  # root may read all, so that the system's answer is replaced
        monkeypatch.setattr(os, "access", lambda path, _mode, closed=closed: path != closed)
        found = explain(refused, file)
        assert isinstance(found, DiskError)
        assert found.errno == errno.EACCES
        assert str(found).startswith(f"{file} cannot be read: you may not open {closed}. Change its permissions")


def test_errors_of_other_files_and_other_errors_pass(tmp_path: Path):
    with pytest.raises(PermissionError, match="elsewhere"), disk_errors(tmp_path / "a" / "b"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/image.png")
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "none").read_text()
    with pytest.raises(ZeroDivisionError), disk_errors(tmp_path):
        _ = 1 / 0


def _write_half(code: int, path: Path) -> None:
    path.write_text("half")
    raise OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    "said",
    [
        "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit.",
    ],
)
def test_too_little_shared_memory_is_explained(tmp_path: Path, said: str):
    with pytest.raises(DiskError, match=r"num_workers to 0.*--shm-size"), disk_errors(tmp_path):
        raise RuntimeError(said)


WRITERS = {
    "json": lambda folder: write_json(folder / "a", ["x" * 9] * 99_999),
    "csv": lambda folder: write_csv(folder / "a", ["a"], [["x" * 9]] * 99_999),
    "map": lambda folder: ArrayWriter(folder / "a", 9, (512, 512), "float32"),
    "torch": lambda folder: _replaced(folder / "a", lambda path: torch.save(torch.zeros(512, 512), path)),
    "safetensors": lambda folder: _replaced(folder / "a", lambda path: save_file({"a": np.zeros((512, 512))}, path)),
}


def _replaced(path: Path, write) -> None:
    with replacing(path) as whole:
        write(whole)


@pytest.mark.parametrize("writer", WRITERS)
def test_each_writer_meets_a_limit_of_the_system_and_leaves_no_half_file(tmp_path: Path, writer: str):
    """The limit on a file's size is the one way to let real writes fail without a disk of one's own."""
    (tmp_path / "a").write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # Python ignores SIGXFSZ: the write fails
    try:
        with pytest.raises(DiskError, match="cannot be written"):
            WRITERS[writer](tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_a_run_on_a_full_disk_ends_with_the_disk_named_and_keeps_what_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = Run.start(tmp_path, "r", {"seed": 1}, parts_of_a_record())
    run.advance("fitted")

    def full(self: Path, *_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="is full"), run.recording_failure():
            run.advance("finished")
    assert Run.open(run.folder).status == "fitted"
    run.advance("finished")
    assert Run.open(run.folder).status == "finished"


def test_a_workbook_on_a_full_disk_is_written_by_the_next_update(
    own_project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    run = Run.start(own_project / "results", "r", {"seed": 1}, parts_of_a_record())
    run.advance("finished")

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        assert not update_workbook(run).written
    assert "is full" in caplog.text
    assert update_workbook().written
    assert len(read_workbook()) == 1


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_real_disk_of_8_mb_that_runs_full_or_is_read_only(parts: Path, tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        env = {**os.environ, "DEFECTLAB_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        train = [sys.executable, "-m", "defectlab", "train", "--data.root", str(parts), "--model.name", "padim"]
        train += ["--backbone.name", "resnet18", "--backbone.weights", "random", "--data.num_workers", "0"]
        small = {**env, "DEFECTLAB_RESULTS": str(disk / "results")}
        full = subprocess.run(train, env=small, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert full.returncode == 2, full.stderr
        assert "is full" in full.stderr
        assert "Traceback" not in full.stderr
        for file in disk.rglob("run.json"):
            assert Run.open(file.parent).status in ("failed", "interrupted", "running")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        closed = subprocess.run(train, env=small, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert closed.returncode == 2
        assert "written" in closed.stderr
        assert "Traceback" not in closed.stderr
    finally:
        subprocess.run(["umount", disk], check=True)
