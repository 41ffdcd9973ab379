"""Resources that a Ray task needs, and the check that a machine of the cluster has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defectlab.sweeps.configurations import Configuration
from defectlab.sweeps.plan import memory_of
from defectlab.utils.validation import check_integer, check_range, check_types, section_options
from defectlab_runtime.errors import InputError, OptionError

WORKER_BYTES = 1_500_000_000  # bytes of a worker with torch, a backbone and a dataset's index: assumed, not measured
SHARE_MODES = ("objects", "cache")


@dataclass(frozen=True)
class RayConfig:
    """Options of section `ray` of a sweep.

    Attributes:
        cpus: CPUs, and threads, of a task.
        gpus: GPUs of a task, parts of one allowed; default is 1 where the sweep's device is a GPU.
        share: How arrays travel: objects, through Ray's object store, or cache, a folder (DEFECTLAB_CACHE) that every
            machine sees.
        retries: How often a task is tried again whose worker or machine has died.
        together: Configurations that one task scores.
    """

    cpus: int = 1
    gpus: float | None = None
    share: str = "objects"
    retries: int = 3
    together: int = 4

    @classmethod
    def from_dict(cls, data: Any) -> "RayConfig":
        """Build the options from the plain data of their section.

        Raises:
            OptionError: An option that does not exist or cannot work.
        """
        given = section_options("ray", data, cls, "{cpus: 2, share: cache}")
        check_types(cls, given, "ray")
        config = cls(**given)
        for name, low in (("cpus", 1), ("retries", 0), ("together", 1)):
            check_integer("ray", name, getattr(config, name), low=low)
        if config.gpus is not None:
            check_range("ray", "gpus", config.gpus, low=0)
        if config.share not in SHARE_MODES:
            raise OptionError(f"ray: share must be one of {', '.join(SHARE_MODES)}, got {config.share!r}.")
        return config


def task_resources(group: Sequence[Configuration], config: RayConfig) -> dict[str, float]:
    """Return the resources that a task of a group needs, as options of Ray: CPUs, GPUs, bytes of memory."""
    on_gpu = group[0].engine.device.type == "cuda"
    gpus = config.gpus if config.gpus is not None else float(on_gpu)
    return {"num_cpus": config.cpus, "num_gpus": gpus, "memory": WORKER_BYTES + memory_of(group)}


def check_resources(label: str, needs: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> None:
    """Check that some machine can run a task; without one Ray would wait forever.

    Args:
        label: What it is for.
        needs: From `task_resources`.
        nodes: Resources of each machine, under Ray's names.

    Raises:
        InputError: None can; says what is needed and what there is.
    """
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    if any(all(node.get(name, 0) >= needs[need] for need, name in names.items()) for node in nodes):
        return
    largest = {name: max((node.get(name, 0) for node in nodes), default=0) for name in names.values()}
    needed = _resources_text(needs["num_cpus"], needs["num_gpus"], needs["memory"])
    there = _resources_text(largest["CPU"], largest["GPU"], largest["memory"])
    raise InputError(
        f"No machine of the Ray cluster can run {label}: a task needs {needed}, and the most that the {len(nodes)} "
        f"machines have is {there}. Add a larger machine, ask for less (ray.cpus, ray.gpus), or lower ratio, "
        "n_features or image size."
    )


def _resources_text(cpus: float, gpus: float, memory: float) -> str:
    return f"{cpus:g} CPUs, {gpus:g} GPUs and {memory / 1e9:.1f} GB"
