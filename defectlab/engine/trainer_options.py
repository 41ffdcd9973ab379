"""Options of Lightning's Trainer: validation, and the epochs and the device that result from the options."""

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from defectlab.models.base import BaseDetector
from defectlab.models.registry import model_info
from defectlab.utils.annotations import check_annotated
from defectlab.utils.logs import quiet_lightning
from defectlab.utils.validation import check_flags, check_option_names
from defectlab_runtime.errors import OptionError

logger = logging.getLogger(__name__)

ENGINE_OPTIONS = ("name", "keep_maps", "loggers", "monitor", "patience", "keep", "keep_checkpoint", "find_batch_size")


def check_trainer_options(options: Mapping[str, Any]) -> None:
    """Check that the Trainer options exist and that a recorded run can work with their values.

    Raises:
        OptionError: With the closest name, or the reason.
    """
    parameters = inspect.signature(Trainer.__init__).parameters
    check_option_names(options, [*(name for name in parameters if name != "self"), *ENGINE_OPTIONS], "Engine")
    check_flags("Engine", options, parameters)
    epochs, devices = options.get("max_epochs"), options.get("devices", 1)
    if epochs is not None and (not isinstance(epochs, int) or epochs == 0 or epochs < -1):
        raise OptionError(f"Engine: max_epochs must be a whole number of at least 1, got {epochs!r}.")
    if devices not in (1, "1", "auto") and not (isinstance(devices, list) and len(devices) == 1):
        raise OptionError(
            f"Engine: devices must be 1 or one index such as [0], got {devices!r}: a run is recorded whole."
        )
    for option, what in (("limit_train_batches", "train on"), ("limit_val_batches", "choose thresholds on")):
        if options.get(option) in (0, 0.0) and options.get(option) is not None:
            raise OptionError(f"Engine: {option}=0 leaves nothing to {what}: leave it out.")
    if options.get("max_steps") == 0:
        raise OptionError("Engine: max_steps=0 trains nothing: give at least 1, or -1 for no limit.")
    strategy = options.get("strategy", "auto")
    if strategy not in ("auto", "single_device"):
        raise OptionError(
            f"Engine: strategy must be 'auto', got {strategy!r}: a run is trained and recorded whole on one device."
        )
    _check_accelerator(options.get("accelerator", "auto"), devices)
    if options.get("num_nodes", 1) != 1:
        raise OptionError("Engine: num_nodes must be 1: a run is recorded whole by one process.")
    if options.get("precision") not in (None, 32, "32", "32-true"):
        raise OptionError(
            f"Engine: precision={options['precision']!r} would score otherwise than prediction does; leave it at 32. "
            "For half precision on a GPU: Patchcore(precision='float16')."
        )
    if any(type(plugin) is not Precision for plugin in _plugins(options) if isinstance(plugin, Precision)):
        raise OptionError(
            "Engine: a precision among plugins would score otherwise than prediction does: leave it out. For half "
            "precision on a GPU: Patchcore(precision='float16')."
        )
    if options.get("fast_dev_run"):
        raise OptionError(
            "Engine: fast_dev_run leaves no checkpoint, so that nothing can be recorded: leave it out. For a short try "
            "give max_epochs=1 and limit_train_batches=1."
        )
    if options.get("enable_checkpointing") is False or options.get("barebones"):
        raise OptionError("Engine: a run needs its checkpoint: leave out enable_checkpointing=False and barebones.")


def _plugins(options: Mapping[str, Any]) -> list[Any]:
    given = options.get("plugins") or []
    return list(given) if isinstance(given, list | tuple) else [given]


def check_trainer_values(options: Mapping[str, Any]) -> None:
    """Check the values of Trainer options from a settings file: their types, and whether Lightning takes them.

    Raises:
        OptionError: With the option's path, or Lightning's reason.
    """
    check_annotated("trainer", options, inspect.signature(Trainer.__init__).parameters)
    check_trainer_options(options)
    given = {name: value for name, value in options.items() if name not in ENGINE_OPTIONS}
    fixed = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    try:
        with quiet_lightning():
            Trainer(**(given | fixed | {"enable_model_summary": False, "accelerator": "cpu", "devices": 1}))
    except (MisconfigurationException, ValueError, TypeError, ArithmeticError, LookupError) as error:
        raise OptionError(f"Section 'trainer' ({', '.join(given)}) cannot work: {error}") from error


def _check_accelerator(accelerator: Any, devices: Any) -> None:
    """Check that this machine has the device that `accelerator` and `devices` name.

    Raises:
        OptionError: With the devices that there are.
    """
    if not isinstance(accelerator, str):
        return  # an accelerator of the user's own
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    counts = there | {"gpu": max(there.values()), "cpu": 1}
    counts["auto"] = counts["gpu"] or 1
    if accelerator not in counts:
        return  # Lightning's other ones (tpu, hpu)
    found = [name for name in ("cuda", "mps") if there[name]]
    if not counts[accelerator]:
        raise OptionError(
            f"Engine: accelerator={accelerator!r}: this machine has none ({', '.join([*found, 'cpu'])} can be used). "
            "Leave it at 'auto'."
        )
    index = devices[0] if isinstance(devices, list) and accelerator != "cpu" else 0
    if isinstance(index, int) and not 0 <= index < counts[accelerator]:
        raise OptionError(
            f"Engine: devices={devices!r}: this machine has {counts[accelerator]} such device"
            f"{'' if counts[accelerator] == 1 else 's'}, counted from 0."
        )


def epochs_of(model: BaseDetector, max_epochs: int | None) -> int:
    """Return how many epochs a model is trained for: the model's own number if it has one or none was given."""
    info = model_info(model.model_name)
    if info.epochs is not None:
        if max_epochs not in (None, info.epochs):
            logger.info("%s fits in %d epoch; max_epochs=%s is not used", model.name, info.epochs, max_epochs)
        return info.epochs
    if max_epochs is None:
        logger.info("%s: max_epochs=%d, since none was given", model.name, info.default_epochs)
        return info.default_epochs
    return max_epochs


def training_device(options: Mapping[str, Any]) -> torch.device:
    """Return the device that `accelerator` and `devices` select, as far as this machine has such a device."""
    accelerator, devices = str(options.get("accelerator", "auto")), options["devices"]
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", devices[0] if isinstance(devices, list) else 0)
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
