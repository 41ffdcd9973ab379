"""What a training step takes, and how much of it is waiting for images."""

import time


class StepClock:
    """Seconds of an epoch's batches; `started` and `ended` are called for each.

    >>> clock = StepClock()
    >>> clock.started(), clock.ended(), clock.batches
    (None, None, 1)
    """

    def __init__(self) -> None:
        self.batches = 0
        self.waited = 0.0
        self._begin = self._since = time.perf_counter()

    def started(self) -> None:
        """The images of a batch are there."""
        self.waited += time.perf_counter() - self._since

    def ended(self) -> None:
        """The step is done; what comes now is waiting for the next images."""
        self.batches += 1
        self._since = time.perf_counter()

    def words(self) -> str:
        """Return the mean seconds of a batch, and those of them in which images were read."""
        count = max(1, self.batches)
        return f"{(self._since - self._begin) / count:.3g} s a batch ({self.waited / count:.3g} s for its images)"
