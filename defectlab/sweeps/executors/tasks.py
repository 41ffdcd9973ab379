"""Tasks of a distributed sweep as plain functions of plain data and arrays. Imports no Ray.

A task gets experiments as plain data and builds its models itself. It is given the arrays that it needs and returns
those that it makes; or, with a shared cache, it finds and leaves them there. Images and weights are read where the
experiments say that they are: every machine must see them.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.experiment import ComponentCache
from defectlab.sweeps.configurations import PREFIX, Configuration, build_all, largest_of
from defectlab.sweeps.execute import run_group
from defectlab.sweeps.executors.memory_store import Arrays, MemoryStore
from defectlab.sweeps.padim import mahalanobis_distances
from defectlab.sweeps.patchcore import ordered_bank, search_bank
from defectlab.sweeps.shared_work import SharedWork
from defectlab.sweeps.subspace import patch_sums
from defectlab.sweeps.table import Outcome
from defectlab.utils.version import __version__
from defectlab_runtime.errors import InputError

# Shared computations of a model after its features, in order; each finds those before it in the store.
STEPS: dict[str, dict[str, Callable[[Sequence[Configuration], SharedWork], Any]]] = {
    "patchcore": {"coreset": ordered_bank, "nearest": search_bank},
    "padim": {"gaussians": mahalanobis_distances},
    "subspace": {"patch sums": patch_sums},
}


@dataclass(frozen=True)
class TaskContext:
    """Settings that all tasks of a sweep have in common.

    Attributes:
        sweep: Its name.
        token: Distinguishes this run of it from others, for what a worker process keeps between tasks.
        variables: Environment variables that decide where things are.
        version: Of the program; a machine with another one is refused.
        threads: Of a task.
        cache: Folder of the shared cache; None: arrays are given and returned.
        cache_gb: Its limit.
        dtype: That features are kept in.
    """

    sweep: str
    token: str
    variables: dict[str, str]
    threads: int = 1
    cache: str | None = None
    cache_gb: float = 20.0
    dtype: str = "float32"
    version: str = __version__


@dataclass(frozen=True)
class TaskConfiguration:
    """A configuration as plain data for a task; see `Configuration`. The task may use the features of `layers`."""

    number: int
    data: dict[str, Any]
    run_id: str
    layers: tuple[str, ...] = ()
    prefix_values: tuple[float, ...] = ()
    is_placeholder: bool = False


@dataclass
class TaskResult:
    """Outcome of a configuration, and the files of its run by path relative to the run folder."""

    number: int
    outcome: Outcome
    files: dict[str, bytes] = field(default_factory=dict)


def task_configuration(one: Configuration, layers: Sequence[str] = ()) -> TaskConfiguration:
    """Return a configuration as plain data for a task."""
    data = one.experiment.to_dict()
    data["trainer"] = {key: value for key, value in data["trainer"].items() if key != "default_root_dir"}
    return TaskConfiguration(one.number, data, one.run_id, tuple(layers))


def largest_task_configuration(group: Sequence[Configuration]) -> TaskConfiguration:
    """Return the placeholder that represents a group in its shared work: the largest configuration, as plain data."""
    prefix, largest = PREFIX[group[0].model.model_name], largest_of(group)
    sizes = {one.model.options[prefix] for one in group if not one.is_placeholder or prefix == PREFIX["padim"]}
    sizes |= {value for one in group for value in one.prefix_values}
    plain = task_configuration(largest, largest.model.options["layers"])
    return replace(plain, prefix_values=tuple(sorted(sizes)), is_placeholder=True)


def make_features(context: TaskContext, member: TaskConfiguration) -> list[Arrays] | Arrays:
    """Compute the features of a dataset's images; return each layer's array separately, in the order of `layers`.

    For a single layer the result is no list: Ray does not unpack the value of a task with one return value.
    """
    with _prepared(context, {}) as (shared, store):
        (one,) = _build(context, [member])
        shared.layers[one.feature_key] = list(member.layers)
        arrays = shared.features(one).layers
        if context.cache is not None:
            found: list[Arrays] = [{} for _ in member.layers]
        else:
            texts = {id(array): text for text, array in store.made.items()}
            found = [{texts[id(arrays[layer])]: arrays[layer]} for layer in member.layers]
    return found if len(found) > 1 else found[0]


def make_shared(context: TaskContext, largest: TaskConfiguration, step: str, *given: Arrays) -> Arrays:
    """Run one shared computation of a group; return its arrays, or nothing with a shared cache, which holds them."""
    with _prepared(context, _merged(given)) as (shared, store):
        (one,) = _build(context, [largest])
        shared.layers[one.feature_key] = list(largest.layers)
        STEPS[one.model.model_name][step]([one], shared)
        return {} if context.cache is not None else store.made


def run_configurations(
    context: TaskContext, largest: TaskConfiguration | None, members: Sequence[TaskConfiguration], *given: Arrays
) -> list[TaskResult]:
    """Run configurations of a group on its shared work; failures are recorded in their runs, as in a local sweep."""
    with _prepared(context, _merged(given)) as (shared, _), tempfile.TemporaryDirectory() as folder:
        pending = []
        for member in members:
            with environment_variables({"DEFECTLAB_RESULTS": f"{folder}/{member.number}"}):
                pending += _build(context, [member])
        for one in pending:
            one.engine.disable_trackers()  # trackers are where the sweep was started, and so is the run's folder
        placeholders = [] if largest is None else _build(context, [largest])
        everything = [*([] if largest is None else [largest]), *members]
        for one, member in zip([*placeholders, *pending], everything, strict=True):
            if member.layers:
                shared.layers[one.feature_key] = list(member.layers)
        with environment_variables({"DEFECTLAB_RESULTS": folder, "DEFECTLAB_WORKBOOK": f"{folder}/workbook.xlsx"}):
            outcomes: list[Outcome] = []
            for group in [[*placeholders, *pending]] if placeholders else [[one] for one in pending]:
                its = [one for one in group if not one.is_placeholder]
                run_group(group, its, shared, context.sweep, outcomes.append)
        return [_packed(Path(folder) / str(outcome.number), outcome) for outcome in outcomes]


def _packed(folder: Path, outcome: Outcome) -> TaskResult:
    """Return an outcome with the files of the run under a results folder, by relative path; no files without a run."""
    found = sorted(folder.glob("*/*/*/run.json"))
    if not found:
        return TaskResult(outcome.number, outcome)
    run = found[0].parent
    files = {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    return TaskResult(outcome.number, outcome, files)


@contextmanager
def _prepared(context: TaskContext, given: Mapping[str, np.ndarray]) -> Iterator[tuple[SharedWork, Any]]:
    """Set up a task's environment variables and number of threads inside the block; yield its shared work and store."""
    if context.version != __version__:
        raise InputError(f"This machine has defectlab {__version__}, the sweep runs {context.version}: install that.")
    torch.set_num_threads(context.threads)
    with environment_variables(context.variables):
        if context.cache is not None:
            store: Any = FeatureStore(context.cache, context.cache_gb, context.dtype)
        else:
            store = MemoryStore(given, context.dtype)
        yield SharedWork([], store), store


def _build(context: TaskContext, members: Sequence[TaskConfiguration]) -> list[Configuration]:
    """Build configurations from plain data, and check that they are those of the process that started the sweep.

    Raises:
        InputError: They are not the same here: images, weights or the program differ.
    """
    found = []
    for member in members:
        ready, refused = build_all([member.data], _components(context.token), first=member.number)
        if refused:
            raise InputError(f"On {os.uname().nodename}: {refused[0].error}")
        one = ready[0]
        if one.run_id != member.run_id:
            raise InputError(
                f"On {os.uname().nodename}, {one.label} on {one.datamodule.name} is another experiment than where the "
                "sweep was started: images under data.root, or weights, differ between the machines."
            )
        one.prefix_values, one.is_placeholder = member.prefix_values, member.is_placeholder
        found.append(one)
    return found


@lru_cache(maxsize=1)
def _components(token: str) -> ComponentCache:  # noqa: ARG001 - the cache's key
    """Return the cache of backbones and datamodules that tasks of one sweep share within a worker process."""
    return ComponentCache()


@contextmanager
def environment_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, and restore the earlier values after it."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _merged(given: Sequence[Arrays]) -> Arrays:
    return {text: array for arrays in given for text, array in arrays.items()}
