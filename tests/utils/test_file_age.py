"""The age of files, by the clock of their disk."""

import os
from pathlib import Path

import pytest

from defectlab.utils import file_age
from defectlab.utils.file_age import age_of, file_system_time


@pytest.mark.usefixtures("clock_ahead")
def test_ages_are_those_of_the_disks_clock(tmp_path: Path):
    file, now = tmp_path / "a", file_system_time(tmp_path)
    file.touch()
    os.utime(file, (now - 7200, now - 7200))
    assert 7200 <= age_of(file) < 7200 + 86_400
    os.utime(file, (now + 86_400, now + 86_400))
    assert age_of(file) < 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_written_has_the_time_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(file_age.time, "time", lambda: 5.0)
    assert file_system_time(tmp_path / "none") == 5.0
