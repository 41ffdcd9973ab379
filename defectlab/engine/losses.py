"""Losses by epoch: of training images, and separately of good and of anomalous validation images."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# label -> name in record, report and trackers; images of unknown label have none
VALIDATION_LOSSES = {0: "val_good_loss", 1: "val_anomalous_loss"}


class ValidationLosses:
    """Mean losses of good and of anomalous images over one validation pass, independent of the batches."""

    def __init__(self) -> None:
        self._losses: dict[int, list[float]] = {label: [] for label in VALIDATION_LOSSES}

    def add(self, losses: "torch.Tensor", labels: Sequence[int]) -> None:
        """Add the losses (B,) of one batch with its labels: 0 good, 1 anomalous, -1 left out."""
        for loss, label in zip(losses.detach().flatten().tolist(), labels, strict=True):
            if label in self._losses:
                self._losses[label].append(loss)

    def means(self) -> dict[str, float]:
        """Return the mean losses by name; a label without images is left out."""
        return {
            VALIDATION_LOSSES[label]: math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan
            for label, values in self._losses.items()
            if values
        }


class LossHistory:
    """All losses by epoch, as run.json stores them under `history`."""

    def __init__(self) -> None:
        self._epochs: list[dict[str, float]] = []

    def add(self, losses: Mapping[str, float]) -> None:
        """Add the losses of one epoch."""
        self._epochs.append(dict(losses))

    def amend(self, losses: Mapping[str, float]) -> None:
        """Add losses to those of the last epoch; do nothing before the first epoch."""
        if self._epochs:
            self._epochs[-1] |= losses

    def record(self) -> dict[str, list[float | None]]:
        """Return, by loss name, one value an epoch; None where the loss was not measured or not finite."""
        return {name: [_finite(epoch.get(name)) for epoch in self._epochs] for name in self._names()}

    def warn(self) -> None:
        """Log a warning about losses that were not finite."""
        for name in self._names():
            wrong = sum(not math.isfinite(epoch[name]) for epoch in self._epochs if name in epoch)
            if wrong:
                logger.warning("%s was not finite in %d of %d epochs", name, wrong, len(self._epochs))

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for epoch in self._epochs for name in epoch))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
