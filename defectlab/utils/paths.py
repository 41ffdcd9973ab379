"""Paths of data, weights, results and workbook, relative to one project root for notebooks in any folder."""

import logging
import os
import shutil
import sys
from functools import lru_cache
from pathlib import Path

from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

WORKBOOK = "models_comparing.xlsx"


def project_root() -> Path:
    """Return the folder against which relative paths resolve.

    `DEFECTLAB_HOME` if set; else the nearest parent of the working directory (itself included) that holds
    `models_comparing.xlsx` or this project's `pyproject.toml`; else the working directory. The choice is logged once.
    """
    home = os.environ.get("DEFECTLAB_HOME")
    return _root(home, Path.cwd())


@lru_cache(maxsize=32)
def _root(home: str | None, cwd: Path) -> Path:
    if home:
        root, reason = Path(home).expanduser().absolute(), "DEFECTLAB_HOME"
    else:
        root, reason = cwd, "the working directory"
        for folder in (cwd, *cwd.parents):
            if (folder / WORKBOOK).is_file():
                root, reason = folder, f"it holds {WORKBOOK}"
                break
            if _is_project(folder / "pyproject.toml"):
                root, reason = folder, "it holds DefectLab's pyproject.toml"
                break
    logger.info("Project root: %s (%s)", root, reason)
    return root


def _is_project(pyproject: Path) -> bool:
    return pyproject.is_file() and 'name = "defectlab"' in pyproject.read_text(encoding="utf-8", errors="replace")


def resolve(path: str | Path) -> Path:
    """Return `path` as an absolute path; a relative one is taken from the project root."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else project_root() / path


def relative(path: str | Path) -> str:
    """Return `path` as stored in records: relative to the project root if inside it, with forward slashes."""
    path = Path(path)
    root = project_root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def results_dir() -> Path:
    """Return the folder of the runs: `DEFECTLAB_RESULTS`, else `results/` in the project root."""
    return resolve(os.environ.get("DEFECTLAB_RESULTS") or "results")


def workbook() -> Path:
    """Return the path of the workbook: `DEFECTLAB_WORKBOOK`, else `models_comparing.xlsx` in the project root.

    Raises:
        InputError: Its name does not end in .xlsx.
    """
    path = resolve(os.environ.get("DEFECTLAB_WORKBOOK") or WORKBOOK)
    if path.suffix.lower() != ".xlsx":
        raise InputError(
            f"The workbook is {path}: give it a name that ends in .xlsx (DEFECTLAB_WORKBOOK). Macros (.xlsm) and other "
            "formats cannot be written."
        )
    return path


def cache_dir() -> Path:
    """Return the folder of recomputable files: `DEFECTLAB_CACHE`, else `.cache/` in the project root."""
    return resolve(os.environ.get("DEFECTLAB_CACHE") or ".cache")


def weights_dirs() -> list[Path]:
    """Return the folders searched for weights: `weights/` in the project root, then `DEFECTLAB_WEIGHTS`."""
    extra = os.environ.get("DEFECTLAB_WEIGHTS")
    return [resolve("weights"), *([resolve(extra)] if extra else [])]


def program() -> str:
    """Return the command that runs DefectLab in the project root, such as `.venv/bin/defectlab` after `make setup`."""
    script = Path(sys.executable).with_name("defectlab")
    if script.is_file() and script.is_relative_to(project_root()):
        return relative(script)
    if shutil.which("defectlab"):
        return "defectlab"
    return str(script) if script.is_file() else "python -m defectlab"
