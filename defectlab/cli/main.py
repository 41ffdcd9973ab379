"""The parser of all commands, and `main`, which runs a command and returns an exit code."""

import io
import os
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from defectlab.cli import cache, data, export, models, records, sweep, train, weights
from defectlab.cli.command import Command, new_parser, option_names
from defectlab.cli.error_messages import explain_parse_error
from defectlab.utils.disk import explain
from defectlab.utils.json_object import short_repr
from defectlab.utils.logs import ignore_import_warnings, show_log
from defectlab.utils.version import __version__
from defectlab.utils.yaml_loader import LimitError, check_limits
from defectlab_runtime import names
from defectlab_runtime.errors import InputError, OptionError


def demo(data: str = "data/coins", epochs: int = 5) -> None:
    """Train PaDiM, PatchCore and CFlow on the built-in sample and show what they found.

    Args:
        data: Where the sample `coins` is, or is made.
        epochs: Epochs of CFlow.
    """
    from defectlab.cli.demo import run_demo

    run_demo(data, epochs)


# name -> the command, or the commands of a group
COMMANDS: dict[str, Command | dict[str, Command]] = {
    "demo": Command(demo),
    "data": data.COMMANDS,
    "weights": weights.COMMANDS,
    "models": models.COMMANDS,
    "train": train.TRAIN,
    "sweep": sweep.SWEEP,
    "add-images": train.ADD_IMAGES,
    "evaluate": train.EVALUATE,
    "threshold": records.THRESHOLD,
    "compare": records.COMPARE,
    "report": records.REPORT,
    "predict": train.PREDICT,
    "convert": records.CONVERT,
    "export": export.EXPORT,
    "cache": cache.COMMANDS,
}
GROUPS = {
    "data": "Look at images, make samples, download public datasets.",
    "weights": "Backbone weights.",
    "models": "What can be trained.",
    "cache": "Features kept on disk.",
}


def build_parser() -> ArgumentParser:
    """Return the parser of all commands."""
    parser = new_parser(
        prog="defectlab", description="Visual anomaly detection: train, compare, predict.", version=__version__
    )
    subcommands = parser.add_subcommands(dest="command")
    groups = []
    for name, command in COMMANDS.items():
        if isinstance(command, dict):
            group = new_parser(description=GROUPS[name])
            subcommands.add_subcommand(name, group, help=GROUPS[name])
            groups.append((group, command))
        else:
            subcommands.add_subcommand(name, command.parser(), help=command.summary)
    for group, commands in groups:  # jsonargparse needs subcommands to be added level by level
        inner = group.add_subcommands(dest="subcommand")
        for inner_name, inner_command in commands.items():
            inner.add_subcommand(inner_name, inner_command.parser(), help=inner_command.summary)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 for a failed check, 2 for invalid input, 130 if interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that is not of the terminal's encoding is no error
            stream.reconfigure(errors="backslashreplace")
    show_log()
    ignore_import_warnings()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    try:
        command = _named_command(arguments)
        if command is not None and command.prepare is not None:
            arguments = command.prepare(arguments, command.option_names())
        _check_values(arguments)
        settings = parser.instantiate_classes(parser.parse_args(arguments))
        function, values = _parsed_command(settings)
        return function(**values) or 0
    except ArgumentError as error:
        _complain(explain_parse_error(str(error), arguments, COMMANDS, option_names(parser)))
    except InputError as error:
        _complain(str(error))
    except OSError as error:
        explained = None if error.filename is None else explain(error, Path(os.fsdecode(error.filename)))
        if explained is None:
            raise
        _complain(str(explained))
    except KeyboardInterrupt:
        print("defectlab: interrupted; the same command starts again.", file=sys.stderr)
        return 130
    return 2


def _complain(message: str) -> None:
    print(f"defectlab: {names.terminal(message, lines=True)}", file=sys.stderr)


def _check_values(arguments: Sequence[str]) -> None:
    """Check that no value is YAML that the parser, which reads some by a loader without limits, would die of."""
    for argument in arguments:
        name, has_value, value = argument.partition("=")
        try:
            check_limits(value if has_value and name.startswith("--") else argument)
        except LimitError as error:
            raise OptionError(f"{short_repr(argument)}: {error}") from None


def _parsed_command(settings: Namespace) -> tuple[Callable[..., int | None], dict[str, Any]]:
    command, values = COMMANDS[settings.command], settings[settings.command]
    if isinstance(command, dict):
        command, values = command[values.subcommand], values[values.subcommand]
    return command.function, {key: value for key, value in vars(values).items() if key not in ("config", "subcommand")}


def _named_command(arguments: Sequence[str]) -> Command | None:
    command = COMMANDS.get(arguments[0]) if arguments else None
    if isinstance(command, dict):
        return command.get(arguments[1]) if len(arguments) > 1 else None
    return command
