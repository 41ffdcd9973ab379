"""Executors of sweeps: they run configurations in this process, or in tasks on a Ray cluster."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.sweeps.configurations import Configuration
from defectlab.sweeps.execute import Report
from defectlab_runtime.errors import OptionError, unknown_name

NAMES = ("local", "ray")


class Executor(Protocol):
    """Runs configurations, and keeps the work that they share from one call of `run` to the next."""

    def run(self, configurations: Sequence[Configuration], pending: Sequence[Configuration], report: Report) -> None:
        """Run the pending configurations of a sweep and report each outcome as soon as it is known."""
        ...

    def close(self) -> None:
        """Release the resources of the executor; called once, also after an error."""
        ...


def make_executor(
    name: str,
    store: FeatureStore,
    sweep: str,
    address: str | None = None,
    ray: Mapping[str, Any] | None = None,
) -> Executor:
    """Return the executor called `name`, for a sweep of that name.

    Args:
        name: One of `NAMES`.
        store: The project's cache.
        sweep: Names the sweep in its records.
        address: That of a running Ray cluster.
        ray: Options of `RayConfig`.

    Raises:
        InputError: There is no such executor, no cluster at the address, or an address without an executor for it.
    """
    from defectlab.sweeps.executors.local import LocalExecutor

    if name not in NAMES:
        raise OptionError(unknown_name("executor", name, NAMES))
    if name == "local":
        if address is not None:
            raise OptionError(f"address={address!r} is that of a Ray cluster: say executor ray too, or leave it out.")
        return LocalExecutor(store, sweep)
    from defectlab.sweeps.executors.on_ray import RayExecutor
    from defectlab.sweeps.executors.ray_resources import RayConfig

    return RayExecutor(store, sweep, address, RayConfig.from_dict(ray or {}))
