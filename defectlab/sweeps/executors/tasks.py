"""What a task of a distributed sweep does, as plain functions of plain data and arrays. No Ray here.

A task is told experiments as plain data and builds its models itself. It is given the arrays that it needs and returns
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
from defectlab.sweeps.configurations import PREFIX, Configuration, build_all
from defectlab.sweeps.execute import run_group
from defectlab.sweeps.executors.memory_store import Arrays, MemoryStore
from defectlab.sweeps.padim import mahalanobis_distances
from defectlab.sweeps.patchcore import ordered_bank, search_bank
from defectlab.sweeps.shared_work import SharedWork
from defectlab.sweeps.table import Outcome
from defectlab.utils.errors import InputError
from defectlab.utils.version import __version__

# Shared computations of a model after its features, in order; each finds those before it in the store.
STEPS: dict[str, dict[str, Callable[[Sequence[Configuration], SharedWork], Any]]] = {
    "patchcore": {"coreset": ordered_bank, "nearest": search_bank},
    "padim": {"gaussians": mahalanobis_distances},
}


@dataclass(frozen=True)
class Setting:
    """What all tasks of a sweep are told.

    Attributes:
        sweep: Its name.
        token: Tells this run of it from others, for what a worker process keeps between tasks.
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
class Member:
    """A configuration as a task is told of it; see `Configuration`. `layers` are those whose features it may use."""

    number: int
    data: dict[str, Any]
    run_id: str
    layers: tuple[str, ...] = ()
    prefix_values: tuple[float, ...] = ()
    is_placeholder: bool = False


@dataclass
class Result:
    """What became of a configuration, the files of its run by path in its folder, and where that folder belongs."""

    number: int
    outcome: Outcome
    place: tuple[str, str] = ("", "")
    files: dict[str, bytes] = field(default_factory=dict)


def member_of(one: Configuration, layers: Sequence[str] = ()) -> Member:
    """Return what a task is told of a configuration."""
    data = one.experiment.to_dict()
    data["trainer"] = {key: value for key, value in data["trainer"].items() if key != "default_root_dir"}
    return Member(one.number, data, one.run_id, tuple(layers))


def leader_of(group: Sequence[Configuration]) -> Member:
    """Return one configuration that stands for a group in its shared work: the largest, which reaches all others."""
    prefix = PREFIX[group[0].model.model_name]
    largest = max(group, key=lambda one: one.model.options[prefix])
    reach = {one.model.options[prefix] for one in group if not one.is_placeholder or prefix == PREFIX["padim"]}
    reach |= {value for one in group for value in one.prefix_values}
    return replace(
        member_of(largest, largest.model.options["layers"]), prefix_values=tuple(sorted(reach)), is_placeholder=True
    )


def make_features(setting: Setting, member: Member) -> list[Arrays] | Arrays:
    """Compute the features of a dataset's images; returns each layer's array by itself, in the order of `layers`.

    That of one layer alone is no list: Ray gives a task with one return value that very value.
    """
    with _at_work(setting, {}) as (shared, store):
        (one,) = _built(setting, [member])
        shared.layers[one.feature_key] = list(member.layers)
        arrays = shared.features(one).layers
        if setting.cache is not None:
            found: list[Arrays] = [{} for _ in member.layers]
        else:
            texts = {id(array): text for text, array in store.made.items()}
            found = [{texts[id(arrays[layer])]: arrays[layer]} for layer in member.layers]
    return found if len(found) > 1 else found[0]


def make_shared(setting: Setting, leader: Member, step: str, *given: Arrays) -> Arrays:
    """Run one shared computation of a group; returns its arrays."""
    with _at_work(setting, _merged(given)) as (shared, store):
        (one,) = _built(setting, [leader])
        shared.layers[one.feature_key] = list(leader.layers)
        STEPS[one.model.model_name][step]([one], shared)
        return {} if setting.cache is not None else store.made


def run_members(setting: Setting, leader: Member | None, members: Sequence[Member], *given: Arrays) -> list[Result]:
    """Run configurations of a group on its shared work; what fails is in its run's record, as in a local sweep."""
    with _at_work(setting, _merged(given)) as (shared, _), tempfile.TemporaryDirectory() as folder:
        pending = []
        for member in members:
            with environment({"DEFECTLAB_RESULTS": f"{folder}/{member.number}"}):
                pending += _built(setting, [member])
        for one in pending:
            one.engine.disable_trackers()  # trackers are where the sweep was started, and so is the run's folder
        leading = [] if leader is None else _built(setting, [leader])
        for one, member in zip([*leading, *pending], [*([leader] if leader else []), *members], strict=True):
            if member.layers:
                shared.layers[one.feature_key] = list(member.layers)
        with environment({"DEFECTLAB_RESULTS": folder, "DEFECTLAB_WORKBOOK": f"{folder}/workbook.xlsx"}):
            outcomes: list[Outcome] = []
            for group in [[*leading, *pending]] if leading else [[one] for one in pending]:
                its = [one for one in group if not one.is_placeholder]
                run_group(group, its, shared, setting.sweep, outcomes.append)
        return [_packed(Path(folder) / str(outcome.number), outcome) for outcome in outcomes]


def _packed(folder: Path, outcome: Outcome) -> Result:
    """Return the one run under a results folder as files by relative path."""
    found = sorted(folder.glob("*/*/*/run.json"))
    if not found:
        return Result(outcome.number, outcome)
    run = found[0].parent
    files = {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    return Result(outcome.number, outcome, (run.parent.parent.name, run.parent.name), files)


@contextmanager
def _at_work(setting: Setting, given: Mapping[str, np.ndarray]) -> Iterator[tuple[SharedWork, Any]]:
    """Set up what a task works with: where things are, threads, and a store."""
    if setting.version != __version__:
        raise InputError(f"This machine has defectlab {__version__}, the sweep runs {setting.version}: install that.")
    torch.set_num_threads(setting.threads)
    with environment(setting.variables):
        if setting.cache is not None:
            store: Any = FeatureStore(setting.cache, setting.cache_gb, setting.dtype)
        else:
            store = MemoryStore(given, setting.dtype)
        yield SharedWork([], store), store


def _built(setting: Setting, members: Sequence[Member]) -> list[Configuration]:
    """Build configurations as the sweep's own process has built them.

    Raises:
        InputError: They are not the same here: images, weights or the program differ.
    """
    found = []
    for member in members:
        ready, refused = build_all([member.data], _components(setting.token), first=member.number)
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
    """Return backbones and datamodules that tasks of one sweep share within a worker process."""
    return ComponentCache()


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a block."""
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
