"""Error messages of the argument parser, with the command as typed and a suggested fix."""

import re
from collections.abc import Mapping, Sequence

from defectlab.cli.command import Command
from defectlab_runtime.errors import did_you_mean, unknown_name

Commands = Mapping[str, Command | Mapping[str, Command]]


def explain_parse_error(message: str, arguments: Sequence[str], commands: Commands, options: Sequence[str]) -> str:
    """Return a parser's error message with the closest command or option, or what a command needs.

    Args:
        message: What the parser said.
        arguments: What was typed.
        commands: All commands; a group is a mapping.
        options: Those of the program itself, known where no command was named.
    """
    typed = list(arguments)
    here, found = "defectlab", commands.get(typed[0]) if typed else None
    if isinstance(found, Mapping):
        here, commands = f"defectlab {typed[0]}", found
        typed, found = typed[1:], found.get(typed[1]) if len(typed) > 1 else None
    if found is None and 'ed "' in message and "to be one of" in message:
        return f"{here} needs a command: {', '.join(commands)}. `{here} --help` says what each does."
    choice = re.search(r"argument (?:sub)?command: invalid choice: '([^']*)'", message)
    if choice:
        return f"{unknown_name('command', choice[1], commands)} `{here} --help` says what each does."
    missing = re.fullmatch(r"Option '[\w.]+' is required but not provided or its value is None\.?", message.strip())
    if missing and found is not None:
        return f"{here} {typed[0]} needs {_required_arguments(found)}.".removeprefix("defectlab ")
    known = options if found is None else found.option_names()
    unknown = re.findall(r"--[\w.]+", message) if "nrecognized" in message else []
    suggestions = "".join(did_you_mean(option, known) for option in unknown)
    return f"{message.rstrip('.')}.{suggestions}" if suggestions else message


def _required_arguments(command: Command) -> str:
    """Return the names of a command's required arguments, each with its help text."""
    parser = command.parser()
    needed = [action for action in parser._actions if action.dest in parser.required_args]
    return ", ".join(
        f"{next(iter(action.option_strings), action.dest)} ({str(action.help).rstrip('.')})" for action in needed
    )
