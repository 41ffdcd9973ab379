"""What `build_manifest` and `check` are asked for, as one value. No torch here."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

Dirs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None


@dataclass(frozen=True)
class DataRequest:
    """The arguments of `build_manifest`, as given: nothing is checked or resolved yet."""

    root: str | os.PathLike[str] | None
    name: str | None = None
    normal_dir: Dirs = None
    abnormal_dir: Dirs = None
    normal_test_dir: Dirs = None
    mask_dir: Dirs = None
    normal_val_dir: Dirs = None
    abnormal_val_dir: Dirs = None
    val_mask_dir: Dirs = None
    extensions: Iterable[str] | str | None = None
    test_split_mode: str | Enum | None = "from_dir"
    test_split_ratio: float = 0.2
    val_split_mode: str | Enum | None = "from_test"
    val_split_ratio: float = 0.5
    seed: int = 42
    on_duplicate: str = "error"
    group: str | None = None
    n_val_good: int | None = None
    unknown_dir: Dirs = None
    mask_suffix: str | None = None
    missing_masks: str = "error"
    task: str | None = None
    valid_area_mask: str | os.PathLike[str] | None = None
    crop_area: Sequence[int] | None = None

    def folders(self) -> dict[str, tuple[str, ...]]:
        """Return the folders that are given by name, by argument; arguments without any are left out."""
        given = {
            "normal_dir": self.normal_dir,
            "abnormal_dir": self.abnormal_dir,
            "normal_test_dir": self.normal_test_dir,
            "mask_dir": self.mask_dir,
            "normal_val_dir": self.normal_val_dir,
            "abnormal_val_dir": self.abnormal_val_dir,
            "val_mask_dir": self.val_mask_dir,
            "unknown_dir": self.unknown_dir,
        }
        return {argument: _as_tuple(dirs) for argument, dirs in given.items() if _as_tuple(dirs)}


def _as_tuple(dirs: Dirs) -> tuple[str, ...]:
    if dirs is None:
        return ()
    return (os.fspath(dirs),) if isinstance(dirs, str | os.PathLike) else tuple(os.fspath(one) for one in dirs)
