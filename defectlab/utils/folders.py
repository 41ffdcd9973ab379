"""Folders for files to be written, and folders that a process may lose while it writes into them."""

from collections.abc import Callable
from pathlib import Path

_guards: list[Callable[[Path], Path | None]] = []


def guard_folders(guarded: Callable[[Path], Path | None]) -> None:
    """Let `make_parents` ask before a file is written: `guarded(path)` names a folder not to be made, or raises."""
    _guards.append(guarded)


def make_parents(path: Path) -> None:
    """Make the folders in which the file `path` is to lie; in a guarded folder only those below it.

    Raises:
        FileNotFoundError: The guarded folder was removed just now.
        InputError: The guarded folder is no longer this process's.
    """
    guarded = next((folder for ask in _guards if (folder := ask(path)) is not None), None)
    if guarded is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    folder = guarded
    for name in path.absolute().parent.relative_to(guarded).parts:
        folder /= name
        folder.mkdir(exist_ok=True)
