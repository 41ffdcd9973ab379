"""State of the git repository, stored in the record of a run."""

import subprocess
from pathlib import Path
from typing import Any

SECONDS = 10.0  # git status of a huge working tree must not hold a training up


def git_state(folder: Path) -> dict[str, Any]:
    """Return `commit`, `branch` and `dirty` of the repository that holds `folder`, or the `reason` of a failure.

    `dirty`: tracked files differ from the commit. `branch` is None where no branch is checked out.
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except FileNotFoundError:
        return {"commit": None, "reason": "git is not installed"}
    except subprocess.TimeoutExpired:
        return {"commit": None, "reason": f"git took longer than {SECONDS:g} s"}
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines()
        return {"commit": None, "reason": lines[-1] if lines else f"git ended with code {error.returncode}"}
    return {"commit": commit, "branch": None if branch == "HEAD" else branch, "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS).stdout.strip()
