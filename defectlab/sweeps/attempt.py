"""Running one of several experiments: an error is logged and returned, and the others still run. Imports no torch."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from defectlab.results.run.run import Run

logger = logging.getLogger(__name__)


class PrunedTrialError(Exception):
    """A training was ended early because it was worse than the median of earlier trainings at the same epoch."""


@dataclass(frozen=True)
class Attempt:
    """Result of running an experiment: the finished run or the error raised, and the seconds used."""

    run: "Run | None"
    error: Exception | None
    seconds: float

    @property
    def summary(self) -> str:
        """Type and message of the error that the experiment raised."""
        return f"{type(self.error).__name__}: {self.error}"


def attempt(
    label: str, work: "Callable[[], Run]", *, expected: tuple[type[Exception], ...] = (PrunedTrialError,)
) -> Attempt:
    """Run one experiment and return its run or its error; an error is logged unless its type is in `expected`.

    Interruptions (KeyboardInterrupt, SystemExit) are not caught.
    """
    begin = time.perf_counter()
    try:
        run = work()
    except expected as error:
        return Attempt(None, error, time.perf_counter() - begin)
    except Exception as error:  # one bad experiment must not cost the others their night
        logger.exception("%s failed; going on with the next", label)
        return Attempt(None, error, time.perf_counter() - begin)
    return Attempt(run, None, time.perf_counter() - begin)
