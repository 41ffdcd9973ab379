"""The folder for unpacking: gone after success and failure, and after a process that was killed."""

import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from defectlab.data.download import scratch
from defectlab.data.download.scratch import scratch_folder


def leftover(folder: Path, name: str, age_s: float) -> Path:
    (folder / name / "content").mkdir(parents=True)
    os.utime(folder / name, (time.time() - age_s,) * 2)
    return folder / name


def test_it_is_removed_whatever_happens(tmp_path: Path):
    with scratch_folder(tmp_path) as inner:
        (inner / "x").write_bytes(b"x")
    with pytest.raises(FileNotFoundError), scratch_folder(tmp_path) as inner:
        (inner / "x").rename(inner / "none/y")
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path, caplog):
    own = f".unpacking-a{scratch._machine()}"
    killed, of_before = leftover(tmp_path, own, 120), leftover(tmp_path, ".unpacking-old", 90_000)
    starting, elsewhere = leftover(tmp_path, f"{own}2", 0), leftover(tmp_path, ".unpacking-b@elsewhere", 7_200)
    used = leftover(tmp_path, f".unpacking-used{scratch._machine()}", 0)
    link = tmp_path / ".unpacking-link"
    (tmp_path / "kept").mkdir()
    link.symlink_to(tmp_path / "kept")
    caplog.set_level("INFO")
    with FileLock(used / "lock"):
        os.utime(used, (time.time() - 120,) * 2)
        with scratch_folder(tmp_path):
            assert used.is_dir()
    assert not killed.exists()
    assert not of_before.exists()
    assert starting.exists()
    assert elsewhere.exists()
    assert link.is_symlink()
    assert caplog.text.count("which a process that was killed had left") == 2


@pytest.mark.usefixtures("clock_ahead")
def test_a_process_that_is_starting_keeps_its_folder_where_clocks_differ(tmp_path: Path):
    starting = tmp_path / f".unpacking-a{scratch._machine()}"
    starting.mkdir()
    with scratch_folder(tmp_path):
        assert starting.is_dir()


def test_what_a_killed_process_unpacked_is_removed_at_once_and_its_half_table_after_a_minute(tmp_path: Path):
    killed = leftover(tmp_path, f".unpacking-a{scratch._machine()}", 0)
    old, new = tmp_path / ".downloads.json.1.part", tmp_path / ".downloads.json.2.part"
    for part in (old, new):
        part.write_bytes(b"{")
    os.utime(old, (time.time() - 120,) * 2)
    with scratch_folder(tmp_path):
        assert not killed.exists()
    assert list(tmp_path.iterdir()) == [new]
