"""A sweep on a real Ray cluster of several nodes on this machine, loopback only. Long: starting nodes takes a while."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.sweeps import LAYERS, SMALL_GRID, assert_equal_runs, settings

from defectlab.results.run.run import find_runs
from defectlab.results.workbook import read_workbook
from defectlab.sweeps.sweep import sweep

pytestmark = pytest.mark.long

CHANGING = {"date (UTC)", "project"}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs, where no task runs, and two machines with one each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # addresses of this machine are the loopback's
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[3]}{os.pathsep}{Path(__file__).parents[2]}")
    common = {"object_store_memory": 200 * 2**20, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **common})
    nodes = [started.add_node(num_cpus=1, memory=6 * 2**30, **common) for _ in range(2)]
    started.wait_for_nodes()
    ray.init(address=started.address, log_to_driver=False)
    started.defectlab_nodes = nodes
    yield started
    ray.shutdown()
    started.shutdown()


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [
        {key: value for key, value in row.items() if key not in CHANGING and not key.endswith("_seconds")}
        for row in rows
    ]
    return sorted(kept, key=lambda row: str(row["run_id"]))


@pytest.mark.row("S.10")
def test_a_node_killed_in_the_middle_changes_nothing(
    cluster: Any, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import ray

    grid = [{**SMALL_GRID[0], "model.layers": LAYERS}, SMALL_GRID[1]]
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path / "local"))
    assert not sweep(settings(parts, grid=grid)).failed
    local, rows = find_runs(), read_workbook()

    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path / "spread"))
    killed: list[float] = []

    def kill() -> None:
        while not find_runs(tmp_path / "spread/results"):  # until the first record is in: work is under way everywhere
            time.sleep(0.1)
        killed.append(len(find_runs(tmp_path / "spread/results")))
        cluster.remove_node(cluster.defectlab_nodes[0], allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    result = sweep(settings(parts, grid=grid, ray={"together": 1, "retries": 5}), executor="ray")
    killer.join(timeout=60)
    assert killed
    assert killed[0] < len(local), "the node died when all was done"
    assert sum(node["Alive"] for node in ray.nodes()) == 2
    assert not result.failed
    assert_equal_runs(find_runs(), local)
    assert plain(read_workbook()) == plain(rows)
    again = sweep(settings(parts, grid=grid), executor="ray")
    assert {one.status for one in again.outcomes} == {"kept"}
