"""Policy for the weights of a training: which epoch is retained, in which form, and what that requires."""

import logging
from dataclasses import dataclass, replace
from typing import Any

from defectlab.data.folder import Folder
from defectlab.data.manifest.manifest import Entry
from defectlab.engine.losses import VALIDATION_LOSSES
from defectlab.evaluation.metrics import auroc, f1_max
from defectlab.models.base import BaseDetector
from defectlab.models.registry import model_info
from defectlab.utils.validation import check_integer
from defectlab_runtime.errors import OptionError, unknown_name

logger = logging.getLogger(__name__)

IMAGE_MONITORS = {"image_AUROC": auroc, "image_F1Max": f1_max}
PIXEL_MONITORS = ("pixel_AUROC", "pixel_F1Max", "pixel_AUPR", "pixel_AUPRO")
LOSS_MONITOR = VALIDATION_LOSSES[0]
MONITORS = (*IMAGE_MONITORS, *PIXEL_MONITORS, LOSS_MONITOR)
EPOCHS = ("best", "last")
CONTENTS = ("all", "weights", "none")


@dataclass(frozen=True)
class CheckpointPolicy:
    """Policy for the epoch whose weights a training ends with, and its checkpoint; None leaves a choice to the model.

    `monitor`: a metric of the validation images, higher is better (image_AUROC, image_F1Max and, on the model's own
    grid, pixel_AUROC, pixel_F1Max, pixel_AUPR, pixel_AUPRO; F1 at its best threshold), or val_good_loss, lower is
    better. `patience`: so many validations without a better one end the training, as does a
    score of 1. `keep`: weights of the best or of the last epoch; best where something is monitored. `checkpoint`: all
    (a training can go on from it), weights (a third of the size with Adam) or none (removed once tested).

    Raises:
        OptionError: A value that does not exist, or patience without a monitor.
    """

    monitor: str | None = None
    patience: int | None = None
    keep: str | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("monitor", self.monitor, MONITORS),
            ("keep", self.keep, EPOCHS),
            ("keep_checkpoint", self.checkpoint, CONTENTS),
        ):
            if value is not None and value not in allowed:
                raise OptionError(f"Engine: {unknown_name(option, str(value), allowed)}")
        if self.patience is not None:
            check_integer("Engine", "patience", self.patience, low=1)
            if self.monitor is None:
                raise OptionError(f"Engine: patience needs monitor, one of {', '.join(MONITORS)}.")

    def for_training(self, model: BaseDetector, datamodule: Folder) -> "CheckpointPolicy":
        """Return the policy of one training, with unset choices filled in by the model.

        A model that fits in a single pass monitors nothing, nor does one that would by itself where there are no good
        validation images.

        Raises:
            OptionError: The best epoch is asked for, and nothing tells it; or this model and these images cannot be
                monitored so.
        """
        checkpoint = self.checkpoint or ("all" if model.keeps_optimizer else "weights")
        if model_info(model.model_name).epochs is not None:
            if self.monitor is not None:
                logger.info("%s fits in a single pass; monitor=%s is not used", model.name, self.monitor)
            return CheckpointPolicy(checkpoint=checkpoint)
        default = model.monitor if self.keep != "last" else None
        monitor = self.monitor or default
        if monitor is None:
            if self.keep == "best":
                raise OptionError(f"Engine: keep='best' needs monitor, one of {', '.join(MONITORS)}.")
            return CheckpointPolicy(keep="last", checkpoint=checkpoint)
        policy = replace(self, monitor=monitor, keep=self.keep or "best", checkpoint=checkpoint)
        if self.monitor is None and not any(entry.label == 0 for entry in _choosing(datamodule)):
            logger.info("No good validation images: %s keeps its last epoch, not its best", model.name)
            return replace(policy, monitor=None, keep="last")
        _check_monitor(monitor, model, datamodule)
        return policy

    def trainer_options(self) -> dict[str, Any]:
        """Return the settings of the policy as trainer options for the record."""
        if self.monitor is None:
            return {}
        return {"monitor": self.monitor, "keep": self.keep} | ({"patience": self.patience} if self.patience else {})


def _check_monitor(monitor: str, model: BaseDetector, datamodule: Folder) -> None:
    """Check that the monitored metric can be computed from this model and the validation images.

    Raises:
        OptionError: With what is missing, and what can be monitored.
    """
    missing = {name: _missing_for(name, model, datamodule) for name in MONITORS}
    if missing[monitor] is not None:
        possible = ", ".join(name for name, what in missing.items() if what is None)
        choice = f"What can be monitored: {possible}." if possible else "Nothing can be monitored: leave it out."
        raise OptionError(f"Engine: monitor={monitor!r} needs {missing[monitor]}. {choice}")


def _choosing(datamodule: Folder) -> list[Entry]:
    """Return the validation images that may choose an epoch: those not held back for calibration."""
    manifest = datamodule.manifest
    return [entry for entry in manifest.split("validation") if manifest.chooses(entry)]


def _missing_for(monitor: str, model: BaseDetector, datamodule: Folder) -> str | None:
    """Return a description of what is missing to compute a monitored metric; None if nothing is missing."""
    entries = _choosing(datamodule)
    needed = (0,) if monitor == LOSS_MONITOR else (1,) if monitor in PIXEL_MONITORS else (0, 1)
    labels = {entry.label for entry in entries}
    if missing := [{0: "good", 1: "anomalous"}[label] for label in needed if label not in labels]:
        return f"{' and '.join(missing)} validation images, and there are none"
    if monitor == LOSS_MONITOR and type(model).image_losses is BaseDetector.image_losses:
        return f"a loss of validation images, and {model.name} has no loss of validation images"
    if monitor in PIXEL_MONITORS and not model_info(model.model_name).maps:
        return f"anomaly maps, and {model.name} gives image scores only"
    if monitor in PIXEL_MONITORS and not any(datamodule.manifest.has_mask(entry) for entry in entries):
        return "masks of anomalous validation images, and there are none"
    return None
