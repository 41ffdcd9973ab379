"""Which configuration is best, chosen on validation images; on the test images only where the user asks, and said."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from defectlab.results.record import Run
from defectlab.results.workbook.rows import LOWER_IS_BETTER
from defectlab.sweeps.objective import validation_metric

logger = logging.getLogger(__name__)

TIE_BREAKER = "pixel_AUROC"


@dataclass(frozen=True)
class Choice:
    """A run that was chosen, by what, and on which images: `oracle` says that they are the test images."""

    run: Run
    metric: str
    value: float
    split: str
    among: int
    oracle: bool

    def to_dict(self) -> dict[str, Any]:
        """Return what the record says of it."""
        return {"metric": self.metric, "value": self.value, "split": self.split, "among": self.among,
                "oracle": self.oracle}  # fmt: skip


def choose(runs: Sequence[Run], metric: str, *, test_if_needed: bool = False) -> Choice | None:
    """Return the best of finished runs of one dataset by a metric of the validation images.

    Of equal ones the best by the pixels' AUROC on the same images is chosen, then the first. Where no validation image
    is labelled anomalous, nothing can be chosen and None is returned, or, with `test_if_needed`, the best on the test
    images, marked as oracle. The log says which it was, and why.
    """
    values = [validation_metric(run, metric) for run in runs]
    name = runs[0].record["dataset"]["name"] if runs else ""
    if any(found.value is not None for found in values):
        known = [found.value for found in values]
        best = _best(runs, metric, known, lambda run: validation_metric(run, TIE_BREAKER).value)
        return _said(Choice(runs[best[0]], metric, best[1], "validation", len(runs), oracle=False), name)
    reason = next((found.reason for found in values), "nothing is finished")
    tested = [run.record["metrics"].get(metric) for run in runs]
    if not test_if_needed or all(value is None for value in tested):
        logger.warning("%s: no best configuration by %s of the validation images: %s", name, metric, reason)
        return None
    logger.warning(
        "%s: %s of the validation images cannot be computed (%s): the best is chosen on the TEST images, an oracle's "
        "choice, so that its test metrics are too good", name, metric, reason,
    )  # fmt: skip
    best = _best(runs, metric, tested, lambda run: run.record["metrics"].get(TIE_BREAKER))
    return _said(Choice(runs[best[0]], metric, best[1], "test", len(runs), oracle=True), name)


def _best(
    runs: Sequence[Run], metric: str, values: Sequence[float | None], tie_breaker: Callable[[Run], float | None]
) -> tuple[int, float]:
    """Return the place of the best run and its value; of equal ones the tie breaker decides, then the order."""
    better = min if metric in LOWER_IS_BETTER else max
    highest = better(value for value in values if value is not None)
    tied = [place for place, value in enumerate(values) if value == highest]
    if len(tied) > 1:
        second = [tie_breaker(runs[place]) for place in tied]
        tied = [tied[max(range(len(tied)), key=lambda at: (_or_none(second[at]), -at))]]
    return tied[0], highest


def _or_none(value: float | None) -> float:
    return -1.0 if value is None else value


def _said(choice: Choice, dataset: str) -> Choice:
    logger.info(
        "%s: best of %d by %s of the %s images (%.4f): %s",
        dataset, choice.among, choice.metric, choice.split, choice.value, choice.run.folder.name,
    )  # fmt: skip
    return choice
