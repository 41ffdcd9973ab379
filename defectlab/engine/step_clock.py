"""Duration of training steps, and the share of the duration that is spent waiting for images."""

import time


class StepClock:
    """Clock for an epoch's batches: measures the seconds of loading images and of training steps.

    >>> clock = StepClock()
    >>> clock.batch_loaded(), clock.step_done(), clock.batches
    (None, None, 1)
    """

    def __init__(self) -> None:
        self.batches = 0
        self._loading = 0.0
        self._begin = self._last_step = time.perf_counter()

    def batch_loaded(self) -> None:
        """Count the time since the last step as loading."""
        self._loading += time.perf_counter() - self._last_step

    def step_done(self) -> None:
        """Count one finished training step and note when the step ended."""
        self.batches += 1
        self._last_step = time.perf_counter()

    def summary(self) -> str:
        """Return the mean seconds of a batch and of its loading, as text."""
        count = max(1, self.batches)
        total, loading = (self._last_step - self._begin) / count, self._loading / count
        return f"{total:.3g} s a batch ({loading:.3g} s for its images)"
