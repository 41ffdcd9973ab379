"""Stand-ins for services that are not there."""

from pathlib import Path
from types import SimpleNamespace


class FakeWandb:
    """As much of wandb as is used: what `init` was told and what was logged, run by run."""

    def __init__(self) -> None:
        self.runs: list[SimpleNamespace] = []

    def init(self, **told):
        logged: list[tuple[int | None, dict]] = []
        run = SimpleNamespace(told=told, logged=logged, exit_code=None)
        run.log = lambda values, step=None: logged.append((step, values))
        run.saved = []
        run.save = lambda file, base_path, policy, **_: run.saved.append(Path(file).relative_to(base_path).as_posix())
        run.finish = lambda exit_code=0: setattr(run, "exit_code", exit_code)
        self.runs.append(run)
        return run
