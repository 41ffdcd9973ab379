"""A sweep in tasks: the work of each as a plain function, how they are put together, and on a real cluster (long)."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_ray import FakeRay
from helpers.sweeps import LAYERS, SMALL_GRID, assert_equal_runs, comparable_rows, settings

import defectlab.sweeps.executors.on_ray as on_ray
from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.results.run.run import Run, find_runs
from defectlab.results.workbook import read_workbook
from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.configurations import prepare
from defectlab.sweeps.executors import make_executor, tasks
from defectlab.sweeps.executors.on_ray import InOrder
from defectlab.sweeps.executors.ray_resources import RayConfig, check_resources
from defectlab.sweeps.sweep import sweep
from defectlab_runtime.errors import InputError, OptionError


@pytest.fixture(scope="module")
def local(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """The runs of a sweep in this process."""
    home = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTLAB_HOME", str(home))
        assert not sweep(settings(parts, grid=SMALL_GRID)).failed
        return find_runs()


@pytest.mark.long
@pytest.mark.row("S.10")
@pytest.mark.parametrize("share", ["objects", "cache"])
def test_tasks_give_the_records_of_a_local_sweep(
    local: list[Run], parts: Path, monkeypatch: pytest.MonkeyPatch, share: str
):
    ray = FakeRay()
    monkeypatch.setattr(on_ray, "import_ray", lambda _: ray)
    grid = SMALL_GRID if share == "objects" else SMALL_GRID[1:]
    result = sweep(settings(parts, grid=grid, ray={"share": share, "together": 2}), executor="ray")
    assert not result.failed
    made = [name for name, _ in ray.submitted]
    assert made.count("make_features") == 1
    assert made.count("make_shared") == (3 if share == "objects" else 1)
    assert made.count("run_configurations") == (3 if share == "objects" else 1)
    assert all(options["memory"] > 1e9 and options["max_retries"] == 3 for _, options in ray.submitted)
    found = find_runs()
    assert_equal_runs(found, [one for one in local if share == "objects" or one.model == "Padim"])
    assert len(FeatureStore().entries()) == (0 if share == "objects" else 3)  # two layers and PaDiM's distances
    assert [Run.open(one.record).record.run_id for one in result.outcomes if one.record] == [
        one.run_id for one in result.plan.configurations
    ]


def test_what_fails_in_a_task_is_on_record_and_stops_no_other(parts: Path, monkeypatch: pytest.MonkeyPatch):
    ray = FakeRay()
    monkeypatch.setattr(on_ray, "import_ray", lambda _: ray)
    monkeypatch.setitem(tasks.STEPS["patchcore"], "nearest", lambda *_: 1 / 0)
    result = sweep(settings(parts, grid=SMALL_GRID), executor="ray")
    assert [one.status for one in result.outcomes] == ["failed"] * 4 + ["finished"] * 2
    failed = [run for run in find_runs() if run.status == "failed"]
    assert len(failed) == 4
    assert all("ZeroDivisionError" in run.record.error.summary for run in failed)


def test_a_machine_with_other_images_or_another_program_is_refused(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (one, *_), _ = prepare(SweepConfig.from_dict(settings(parts, grid=SMALL_GRID[1:])).expanded())
    context = tasks.TaskContext("s", "token", {})
    member = tasks.task_configuration(one, ("layer1",))
    with pytest.raises(InputError, match="is another experiment than where the sweep was started"):
        tasks.make_features(context, replace(member, run_id="0" * 12))
    with pytest.raises(InputError, match="install that"):
        tasks.make_features(replace(context, version="0.0.0"), member)


def test_a_task_too_large_for_every_machine_is_refused_before_anything_runs(
    parts: Path, monkeypatch: pytest.MonkeyPatch
):
    ray = FakeRay(memory=1e9)
    monkeypatch.setattr(on_ray, "import_ray", lambda _: ray)
    with pytest.raises(InputError, match="No machine of the Ray cluster can run Patchcore"):
        sweep(settings(parts, grid=SMALL_GRID), executor="ray")
    assert not ray.submitted
    check_resources("x", {"num_cpus": 1, "num_gpus": 0, "memory": 1.0}, [{"CPU": 1, "memory": 2}])
    with pytest.raises(InputError, match="1 GPUs"):
        check_resources("x", {"num_cpus": 1, "num_gpus": 1, "memory": 1.0}, [{"CPU": 1, "memory": 2}])


def test_options_of_executors_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    store = FeatureStore(tmp_path)
    with pytest.raises(OptionError, match="Did you mean 'ray'"):
        make_executor("rays", store, "s")
    with pytest.raises(OptionError, match="say executor ray too"):
        make_executor("local", store, "s", "auto")
    wrong = [({"cpu": 1}, "Did you mean 'cpus'"), ({"share": "disk"}, "objects, cache"), ({"cpus": 0}, "least 1")]
    for given, message in wrong:
        with pytest.raises(OptionError, match=message):
            RayConfig.from_dict(given)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"defectlab\[ray\]"):
        make_executor("ray", store, "s")


def test_runs_of_one_name_take_their_places_in_order():
    order = InOrder([3, 5, 9])
    assert order.ready(9, None) == []
    assert [number for number, _ in order.ready(3, None)] == [3]
    assert [number for number, _ in order.ready(5, None)] == [5, 9]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs, where no task runs, and two nodes with one each; all on this machine, loopback only."""
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


@pytest.mark.long
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
    assert comparable_rows(read_workbook()) == comparable_rows(rows)
    again = sweep(settings(parts, grid=grid), executor="ray")
    assert {one.status for one in again.outcomes} == {"kept"}
