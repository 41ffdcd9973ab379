"""The executor that runs a sweep as Ray tasks: each shared computation runs once, on any machine of the cluster."""

import logging
import os
import uuid
from collections.abc import Sequence
from typing import Any

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.results.run.adoption import adopt_run
from defectlab.sweeps.configurations import PREFIX, Configuration, pending_groups
from defectlab.sweeps.execute import Report, failed_outcome, outcome_of
from defectlab.sweeps.executors import tasks
from defectlab.sweeps.executors.ray_resources import RayConfig, check_resources, task_resources
from defectlab.sweeps.shared_work import SharedWork
from defectlab.utils import paths
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

FORWARDED_VARIABLES = ("DEFECTLAB_WEIGHTS", "DEFECTLAB_CACHE")


def import_ray(address: str | None) -> Any:
    """Return the ray package with usage statistics off; without an address, its cluster is restricted to this machine.

    Raises:
        InputError: It is not installed; says how to get it.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:  # read when ray is imported: a cluster started here listens on the loopback address only
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError as error:
        raise InputError("executor ray needs the package ray: `pip install 'defectlab[ray]'`.") from error
    return ray


class InOrder:
    """Results of one model, dataset and readable name, released in the order of a local sweep.

    The first run to be stored keeps the name, and others get a suffix: the order of arrival must not decide which.
    """

    def __init__(self, waiting: Sequence[int]) -> None:
        self.waiting = list(waiting)
        self._arrived: dict[int, tasks.TaskResult | None] = {}

    def ready(self, number: int, result: "tasks.TaskResult | None") -> list[tuple[int, "tasks.TaskResult | None"]]:
        """Store the result of one configuration, and return all results that are next in order."""
        self._arrived[number], ready = result, []
        while self.waiting and self.waiting[0] in self._arrived:
            first = self.waiting.pop(0)
            ready.append((first, self._arrived.pop(first)))
        return ready


class RayExecutor:
    """Runs groups of configurations as tasks of a Ray cluster.

    Args:
        store: The project's cache; shared by all machines with `share: cache`, else not used.
        sweep: Name of the sweep.
        address: Of a running cluster; None starts one on this machine, closed to others.
        config: Needs of a task, retries.

    Raises:
        InputError: Ray is missing.
    """

    def __init__(self, store: FeatureStore, sweep: str, address: str | None, config: RayConfig) -> None:
        self._ray = import_ray(address)
        self._config = config
        self._address, self._started = address, False
        self._context = tasks.TaskContext(
            sweep,
            uuid.uuid4().hex,
            {
                "DEFECTLAB_HOME": str(paths.project_root()),
                **{n: os.environ[n] for n in FORWARDED_VARIABLES if n in os.environ},
            },
            config.cpus,
            str(store.root) if config.share == "cache" else None,
            store.limit / 1e9,
            store.dtype,
        )
        functions = (tasks.make_features, tasks.make_shared, tasks.run_configurations)
        self._features_task, self._shared_task, self._score_task = (self._ray.remote(one) for one in functions)
        self._layers = SharedWork([], store)
        self._features: dict[Any, dict[str, Any]] = {}

    def run(self, configurations: Sequence[Configuration], pending: Sequence[Configuration], report: Report) -> None:
        """Run the pending configurations of a sweep and report each outcome as soon as it is known.

        Raises:
            InputError: There is no cluster at the address, or no machine of it can run a task.
        """
        if not pending:
            return
        if not self._ray.is_initialized():
            self._connect()
        self._layers.expect(configurations)
        groups = [(group, its) for group, its in pending_groups(configurations, pending) if its]
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        for group, its in groups:
            check_resources(f"{its[0].label} on {its[0].datamodule.name}", task_resources(group, self._config), nodes)
        running: dict[Any, list[Configuration]] = {}
        try:
            for group, its in groups:
                running |= self._submit(group, its)
            logger.info("Ray: %d tasks score %d configurations on %d machines", len(running), len(pending), len(nodes))
            self._collect(running, [one for _, its in groups for one in its], report)
        finally:
            for task in running:
                self._ray.cancel(task)

    def close(self) -> None:
        """Release the features, and disconnect from the cluster; a cluster that was started here is shut down."""
        self._features.clear()
        if self._started:
            self._ray.shutdown()

    def _connect(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
        if self._address is None:
            logger.info("Ray: a cluster of this machine alone, without dashboard")
            options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            self._ray.init(address=self._address or "local", **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"There is no Ray cluster at {self._address!r}: {error}") from error
        self._started = True

    def _submit(self, group: Sequence[Configuration], its: Sequence[Configuration]) -> dict[Any, list[Configuration]]:
        """Submit all tasks that pending configurations of a group need; return scoring tasks with configurations."""
        options = {**task_resources(group, self._config), "max_retries": self._config.retries}
        score = self._score_task.options(**options)
        if not group[0].shares:
            found = {}
            for one in its:
                layers = self._layers_of(one)
                given = self._feature_tasks(one, layers, options)
                found[score.remote(self._context, None, [tasks.task_configuration(one, layers)], *given)] = [one]
            return found
        largest = tasks.largest_task_configuration(group)
        given = self._feature_tasks(group[0], largest.layers, options)
        for step in tasks.STEPS[group[0].model.model_name]:
            made = self._shared_task.options(**options).remote(self._context, largest, step, *given)
            given = [*given, made]
        prefix = PREFIX[group[0].model.model_name]
        ordered = sorted(its, key=lambda one: one.model.options[prefix])
        running = {}
        for begin in range(0, len(ordered), self._config.together):
            chunk = ordered[begin : begin + self._config.together]
            members = [tasks.task_configuration(one, largest.layers) for one in chunk]
            running[score.remote(self._context, largest, members, *given)] = chunk
        return running

    def _layers_of(self, one: Configuration) -> tuple[str, ...]:
        return tuple(one.model.options["layers"]) if one.takes_features else ()

    def _feature_tasks(self, one: Configuration, layers: Sequence[str], options: dict[str, Any]) -> list[Any]:
        """Return references to the features of `layers`; one task computes those of all layers that the sweep needs."""
        if not layers:
            return []
        key = one.feature_key
        known = self._features.setdefault(key, {})
        if any(layer not in known for layer in layers):
            wanted = [layer for layer in self._layers.layers[key] if layer not in known]
            task = self._features_task.options(num_returns=len(wanted), **options)
            made = task.remote(self._context, tasks.task_configuration(one, wanted))
            known |= dict(zip(wanted, made if len(wanted) > 1 else [made], strict=True))
        return [known[layer] for layer in layers]

    def _collect(self, running: dict[Any, list[Configuration]], order: Sequence[Configuration], report: Report) -> None:
        """Report results as tasks finish; `running` holds the tasks that are not finished yet."""
        by_number = {one.number: one for one in order}
        names: dict[tuple[str, str], InOrder] = {}
        for one in order:
            names.setdefault((one.datamodule.name, one.label), InOrder([])).waiting.append(one.number)
        while running:
            (done,), _ = self._ray.wait(list(running), num_returns=1)
            chunk = running.pop(done)
            for number, result in self._results(done, chunk, report):
                one = by_number[number]
                for its, found in names[one.datamodule.name, one.label].ready(number, result):
                    if found is not None:
                        report(self._adopted(by_number[its], found))

    def _results(
        self, done: Any, chunk: Sequence[Configuration], report: Report
    ) -> list[tuple[int, "tasks.TaskResult | None"]]:
        """Return a task's results by number; a failed task is recorded and reported, and gives None for each."""
        try:
            return [(result.number, result) for result in self._ray.get(done)]
        except self._ray.exceptions.RayError as raised:
            error: Exception = getattr(raised, "cause", None) or raised
            logger.error("The work that %d configurations share failed: %s", len(chunk), raised)
            for one in chunk:
                report(failed_outcome(one, error))
            return [(one.number, None) for one in chunk]

    def _adopted(self, one: Configuration, result: "tasks.TaskResult") -> Any:
        """Store the run of a task's result in the results folder and return its outcome."""
        found = result.outcome
        if not result.files:
            return outcome_of(one, found.status, error=found.error)
        run = adopt_run(result.files, one.engine.results_folder)
        if run.status == "finished":
            one.engine.writer_of(run).announce(trained_elsewhere=True)
        return outcome_of(one, found.status, run, error=found.error, seconds=found.seconds)
