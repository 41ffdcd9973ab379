"""Mirrors of a run's record at trackers: MLflow, TensorBoard, CSV, Weights & Biases, Comet.

Each is named in YAML (`loggers: [mlflow, {name: wandb, project: wells}]`), at the engine (`Engine(loggers=["csv"])`),
or given as a callback (`Engine(callbacks=[MlflowLog()])`). The record stays the truth: a tracker that fails costs
nothing but its copy. Importing this loads no torch.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from defectlab.utils.errors import InputError, OptionError, unknown_name
from defectlab.utils.validation import check_option_names

if TYPE_CHECKING:
    from defectlab.engine.trackers.tracker import Mirror

Spec = str | Mapping[str, Any]


@dataclass(frozen=True)
class LoggerInfo:
    """A tracker by name: its class, and the packages it needs with the extra that brings them."""

    module: str
    class_name: str
    packages: tuple[str, ...] = ()
    extra: str = ""


LOGGERS = {
    "mlflow": LoggerInfo("mlflow_tracker", "MlflowLog", ("mlflow", "sqlalchemy", "alembic"), "loggers"),
    "tensorboard": LoggerInfo("tensorboard_tracker", "TensorBoardLog", ("tensorboard",), "loggers"),
    "csv": LoggerInfo("csv_tracker", "CsvLog"),
    "wandb": LoggerInfo("wandb_tracker", "WandbLog", ("wandb",), "loggers"),
    "comet": LoggerInfo("comet_tracker", "CometLog", ("comet_ml",), "comet"),
}


def check_loggers(specs: Sequence[Spec]) -> None:
    """Refuse what names no tracker, or one whose package is absent; no package is loaded for it.

    Raises:
        OptionError: No list, no such tracker (the closest is named), or one named twice.
        InputError: A package is not installed; the message names the extra.
    """
    if isinstance(specs, str | Mapping) or not isinstance(specs, Sequence):
        raise OptionError(f"loggers must be a list such as [csv, {{name: wandb, project: wells}}], got {specs!r}.")
    names = [_split(spec)[0] for spec in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(f"loggers names {', '.join(twice)} twice.")
    for name in names:
        check_installed(name)


def check_installed(name: str) -> None:
    """Refuse a tracker whose packages are not installed.

    Raises:
        InputError: With the extra that brings them.
    """
    info = LOGGERS[name]
    missing = [package for package in info.packages if not _is_there(package)]
    if missing:
        raise InputError(
            f"Logger {name} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            f".venv/bin/python -m pip install 'defectlab[{info.extra}]' (in a checkout: '.[{info.extra}]')."
        )


def make_loggers(specs: Sequence[Spec]) -> "list[Mirror]":
    """Return the callbacks that the specs name.

    Raises:
        InputError: As `check_loggers`, and options that a tracker does not have, with the closest it has.
    """
    check_loggers(specs)
    made = []
    for spec in specs:
        name, options = _split(spec)
        info = LOGGERS[name]
        cls = getattr(import_module(f"defectlab.engine.trackers.{info.module}"), info.class_name)
        allowed = [option for option in inspect.signature(cls.__init__).parameters if option != "self"]
        check_option_names(options, allowed, f"Logger {name}")
        made.append(cls(**options))
    return made


def _split(spec: Spec) -> tuple[str, dict[str, Any]]:
    options = {"name": spec} if isinstance(spec, str) else dict(spec) if isinstance(spec, Mapping) else {}
    name = options.pop("name", None)
    if name is None:
        raise OptionError(f"A logger is a name or a mapping with a name, such as {{name: wandb}}; got {spec!r}.")
    if name not in LOGGERS:
        raise OptionError(unknown_name("logger", str(name), LOGGERS))
    return name, options


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # ValueError: a module without a spec stands in for it
        return True
