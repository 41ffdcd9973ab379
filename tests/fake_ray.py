"""A stand-in for Ray, and what two sweeps are compared by."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from defectlab.results.run.record import Run

LAYERS = [["layer2", "layer3"], ["layer1", "layer2"]]


class Task:
    def __init__(self, ray: "FakeRay", function: Any, **options: Any) -> None:
        self.ray, self.function, self.given = ray, function, options

    def options(self, **options: Any) -> "Task":
        return Task(self.ray, self.function, **options)

    def remote(self, *given: Any) -> Any:
        """Run at once, on copies: a task on another machine shares no object."""
        count = self.given.get("num_returns", 1)
        self.ray.submitted.append((self.function.__name__, self.given))
        try:
            given = tuple(self.ray.get(one) if isinstance(one, Ref) else one for one in given)
            values = self.function(*pickle.loads(pickle.dumps(given)))
            values = pickle.loads(pickle.dumps(values))
        except Exception as error:
            failure = error if isinstance(error, FakeError) else FakeError(error)
            return [Ref(failure) for _ in range(count)] if count > 1 else Ref(failure)
        return [Ref(value) for value in values] if count > 1 else Ref(values)


class Ref:
    def __init__(self, value: Any) -> None:
        self.value = value


class FakeError(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class FakeRay:
    """What the executor uses of Ray, in this process; the last task submitted is done first."""

    exceptions = SimpleNamespace(RayError=FakeError)

    def __init__(self, **node: float) -> None:
        self.submitted: list[tuple[str, dict[str, Any]]] = []
        self.node = {"CPU": 4.0, "memory": 64e9, **node}

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self.node}, {"Alive": False, "Resources": {"CPU": 64.0}}]

    def remote(self, function: Any) -> Task:
        return Task(self, function)

    def get(self, ref: Ref) -> Any:
        if isinstance(ref.value, Exception):
            raise ref.value
        return ref.value

    def wait(self, refs: list[Ref], num_returns: int) -> tuple[list[Ref], list[Ref]]:
        return refs[-1:], refs[:-1]

    def cancel(self, ref: Ref) -> None:
        pass


def assert_equal_runs(ours: list[Run], theirs: list[Run]) -> None:
    others = {run.record["run_id"]: run for run in theirs}
    assert {run.record["run_id"] for run in ours} == set(others)
    for run in ours:
        other = others[run.record["run_id"]]
        assert run.record["name"] == other.record["name"]
        assert (run.status, run.record["facts"]) == (other.status, other.record["facts"])
        for split in ("validation", "test"):
            rows = [(row.image_path, row.label, row.pred_label) for row in run.scores(split)]
            assert rows == [(row.image_path, row.label, row.pred_label) for row in other.scores(split)]
            scores = [[row.score for row in one.scores(split)] for one in (run, other)]
            np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
            np.testing.assert_allclose(run.maps(split), other.maps(split), rtol=1e-4, atol=1e-5)
        for name, value in other.record["metrics"].items():
            assert run.record["metrics"][name] == pytest.approx(value, abs=1e-6), name


GRID = [
    {
        "model.name": "patchcore",
        "model.layers": LAYERS[:1],
        "model.coreset_sampling_ratio": [0.05, 0.2],
        "model.num_neighbors": [1, 3],
    },
    {"model.name": "padim", "model.layers": LAYERS[1:], "model.n_features": [7, 20]},
]


def settings(root: Path, **more: Any) -> dict[str, Any]:
    return {
        "data": {"root": str(root), "num_workers": 0, "train_batch_size": 3, "eval_batch_size": 4},
        "backbone": {"name": "resnet18", "weights": "random"},
        "model": {"image_size": [64, 64]},
        "trainer": {"accelerator": "cpu"},
        "grid": GRID,
        "checkpoints": "none",
    } | more
