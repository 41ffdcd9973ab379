"""Location of run folders."""

import difflib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from defectlab.results.run.identity import differing_suffix, former_name, run_part, safe_name
from defectlab.results.run.record import FILE, NewerRecordError, RunRecord, find_record
from defectlab.utils import paths
from defectlab_runtime import names

CHECKPOINT = "weights/lightning/model.ckpt"


def parent_of(results: Path, record: RunRecord) -> Path:
    """Return the parent of a run's folder, named by model and dataset; one with a name of earlier versions stays."""
    model, dataset = record.model, record.dataset.name
    former = results / former_name(model) / former_name(dataset)
    with suppress(OSError, ValueError):  # a name that no file system takes
        if former.is_dir():
            return former
    return results / safe_name(model) / safe_name(dataset)


def place_of(parent: Path, name: str, facts: Mapping[str, Any], identity: str) -> Path:
    """Return the folder for this experiment: that of its earlier run of this name, or a free one.

    Folders are named by `run_part`; a run in one that an earlier version named stays there. A folder that differs by
    upper and lower case alone is not free.
    """
    short = run_part(name)
    begins = tuple({names.alike(short), names.alike(former_name(name))})
    there = {folder: names.alike(folder.name) for folder in parent.iterdir()} if parent.is_dir() else {}
    for folder in sorted(folder for folder, alike in there.items() if alike.startswith(begins)):
        earlier = _known_record(folder)
        if earlier is not None and earlier.run_id == identity:
            return folder
    same = next((folder for folder, alike in there.items() if alike == names.alike(short)), None)
    if same is None:
        return parent / short
    taken, hashed = _known_record(same), f"_{identity[:6]}"
    if taken is not None and taken.run_id == identity:  # it was being replaced when it was first looked at
        return same
    suffix = differing_suffix(facts, taken.facts) if taken else ""
    readable = parent / f"{short}{suffix.removesuffix(hashed)}"
    if not suffix.endswith(hashed) and names.alike(readable.name) not in there.values():
        return readable
    return readable.with_name(f"{readable.name}{hashed}")


def _known_record(folder: Path) -> RunRecord | None:
    with suppress(NewerRecordError):
        return find_record(folder)
    return None


def suggest_runs(wanted: Path) -> str:
    """Return a message that lists existing runs in place of a missing one, with the closest names first."""
    there = [paths.relative(file.parent) for file in sorted(paths.results_dir().glob(f"*/*/[!.]*/{FILE}"))]
    if not there:
        return (
            f"There are no runs under {paths.results_dir()} yet: run the first training cell of "
            "training_code/patchcore.ipynb, or `make demo`."
        )
    close = difflib.get_close_matches(paths.relative(wanted), there, n=3, cutoff=0)
    more = f" and {len(there) - len(close)} more under {paths.results_dir()}" if len(there) > len(close) else ""
    return f"There are {', '.join(close)}{more}; a training cell or `make demo` makes others."
