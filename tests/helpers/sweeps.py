"""Settings of a small sweep, and the comparison of two sweeps' runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defectlab.results.run.run import Run

LAYERS = [["layer2", "layer3"], ["layer1", "layer2"]]
GRID = [
    {
        "model.name": "patchcore",
        "model.layers": LAYERS,
        "model.coreset_sampling_ratio": [0.05, 0.2],
        "model.num_neighbors": [1, 3],
    },
    {"model.name": "padim", "model.layers": LAYERS, "model.n_features": [7, 20]},
]
SMALL_GRID = [{**GRID[0], "model.layers": LAYERS[:1]}, {**GRID[1], "model.layers": LAYERS[1:]}]


def settings(root: Path, **more: Any) -> dict[str, Any]:
    return {
        "data": {"root": str(root), "num_workers": 0, "train_batch_size": 3, "eval_batch_size": 4},
        "backbone": {"name": "resnet18", "weights": "random"},
        "model": {"image_size": [64, 64]},
        "trainer": {"accelerator": "cpu"},
        "grid": GRID,
        "checkpoints": "none",
    } | more


def assert_equal_runs(ours: list[Run], theirs: list[Run]) -> None:
    others = {run.record.run_id: run for run in theirs}
    assert {run.record.run_id for run in ours} == set(others)
    for run in ours:
        other = others[run.record.run_id]
        assert run.record.name == other.record.name
        assert (run.status, run.record.facts) == (other.status, other.record.facts)
        for split in ("validation", "test"):
            rows = [(row.image_path, row.label, row.pred_label) for row in run.scores(split)]
            assert rows == [(row.image_path, row.label, row.pred_label) for row in other.scores(split)]
            scores = [[row.score for row in one.scores(split)] for one in (run, other)]
            np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
            np.testing.assert_allclose(run.maps(split), other.maps(split), rtol=1e-4, atol=1e-5)
        for name, value in other.record.metrics.items():
            assert run.record.metrics[name] == pytest.approx(value, abs=1e-6), name


def comparable_rows(rows: list[dict[str, Any]], *others: str, seconds: bool = False) -> list[dict[str, Any]]:
    """The workbook's rows by run id, without what differs between equal sweeps: date, project, `others`, seconds."""
    changing = {"date (UTC)", "project", *others}
    kept = [
        {key: value for key, value in row.items() if key not in changing and (seconds or not key.endswith("_seconds"))}
        for row in rows
    ]
    return sorted(kept, key=lambda row: str(row["run_id"]))
