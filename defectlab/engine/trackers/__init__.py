"""Trackers that get a copy of a run's record: MLflow, TensorBoard, CSV, Weights & Biases, Comet.

Each is named in YAML (`loggers: [mlflow, {name: wandb, project: wells}]`), at the engine (`Engine(loggers=["csv"])`),
or given as a callback (`Engine(callbacks=[MlflowLog()])`). The record stays the truth: a tracker that fails costs
nothing but its copy. Importing this loads neither torch nor a tracker's package.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from defectlab.engine.trackers.comet_tracker import CometLog
from defectlab.engine.trackers.csv_tracker import CsvLog
from defectlab.engine.trackers.mlflow_tracker import MlflowLog
from defectlab.engine.trackers.tensorboard_tracker import TensorBoardLog
from defectlab.engine.trackers.tracker import RunTracker
from defectlab.engine.trackers.wandb_tracker import WandbLog
from defectlab.utils.validation import check_option_names
from defectlab_runtime.errors import OptionError, unknown_name

TrackerSpec = str | Mapping[str, Any]
TRACKERS: dict[str, type[RunTracker]] = {
    cls.name: cls for cls in (MlflowLog, TensorBoardLog, CsvLog, WandbLog, CometLog)
}


def check_trackers(specs: Sequence[TrackerSpec]) -> None:
    """Check that every tracker of a list is known, named once, and has its packages installed.

    Raises:
        OptionError: No list, no such tracker (the closest is named), or one named twice.
        InputError: A package is not installed; the message names the extra.
    """
    if isinstance(specs, str | Mapping) or not isinstance(specs, Sequence):
        raise OptionError(f"loggers must be a list such as [csv, {{name: wandb, project: wells}}], got {specs!r}.")
    names = [_name_and_options(spec)[0] for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise OptionError(f"loggers names {', '.join(twice)} twice.")
    for name in names:
        TRACKERS[name].check_installed()


def make_trackers(specs: Sequence[TrackerSpec]) -> list[RunTracker]:
    """Return the trackers that the specs name.

    Raises:
        InputError: As `check_trackers`, and options that a tracker does not have, with the closest it has.
    """
    check_trackers(specs)
    trackers = []
    for name, options in map(_name_and_options, specs):
        check_option_names(options, inspect.signature(TRACKERS[name]).parameters, f"Logger {name}")
        trackers.append(TRACKERS[name](**options))
    return trackers


def _name_and_options(spec: TrackerSpec) -> tuple[str, dict[str, Any]]:
    options = {"name": spec} if isinstance(spec, str) else dict(spec) if isinstance(spec, Mapping) else {}
    name = options.pop("name", None)
    if name is None:
        raise OptionError(f"A logger is a name or a mapping with a name, such as {{name: wandb}}; got {spec!r}.")
    if not isinstance(name, str) or name not in TRACKERS:
        raise OptionError(unknown_name("logger", str(name), TRACKERS))
    return name, options
