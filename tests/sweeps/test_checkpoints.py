"""Which checkpoints a sweep removes: its own alone."""

from pathlib import Path

import pytest
from helpers.runs import finished

from defectlab.sweeps.checkpoints import CheckpointRequest, retain_checkpoints


@pytest.mark.row("R.10")
def test_checkpoints_that_others_made_stay(parts: Path):
    runs = {}
    for name, facts in {
        "alone": {},
        "alone in a group": {"groups": ["mine"]},
        "of another": {"name": "a", "number": 1},
        "asked for": {"name": "b", "number": 1, "refit": {"named": "1"}},
        "own": {"name": "b", "number": 2},
    }.items():
        run = finished(name, sweep=facts)
        run.checkpoint.parent.mkdir(parents=True)
        run.checkpoint.write_text("weights")
        runs[name] = run
    retain_checkpoints("none", CheckpointRequest(), [], runs, None, "b")  # type: ignore[arg-type]
    assert [name for name, run in runs.items() if not run.checkpoint.is_file()] == ["own"]
