"""The commit a run came from."""

import subprocess
from pathlib import Path

import pytest

from defectlab.utils import git as module
from defectlab.utils.git import git_state


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.row("3.2")
def test_commit_branch_and_changes(tmp_path: Path):
    assert git_state(tmp_path)["commit"] is None
    assert "not a git repository" in git_state(tmp_path)["reason"]
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "first")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/untracked").write_text("")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path / "results") == {"commit": commit, "branch": "main", "dirty": False}
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path)["dirty"] is True
    git(tmp_path, "checkout", "--detach")
    assert git_state(tmp_path)["branch"] is None


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("git")))
    assert git_state(tmp_path) == {"commit": None, "reason": "git is not installed"}
