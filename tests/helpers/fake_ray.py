"""A stand-in for Ray."""

import pickle
from types import SimpleNamespace
from typing import Any


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
