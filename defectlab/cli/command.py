"""`Command`, the declaration of a command, and the argument parser made for each command."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser, set_loader

from defectlab.utils.config_files import load_yaml
from defectlab_runtime.errors import InputError

_SETTINGS = "defectlab"  # name of our loader in jsonargparse, whose own has no limits


@dataclass(frozen=True)
class Command:
    """One command: its function, and the declaration of its arguments if the function's signature is not enough.

    The first line of the function's docstring is the command's help. `prepare` sees what was typed, and the names of
    all options, before it is parsed.
    """

    function: Callable[..., int | None]
    arguments: Callable[[ArgumentParser], None] | None = None
    prepare: Callable[[Sequence[str], Sequence[str]], list[str]] | None = None

    @property
    def summary(self) -> str:
        """The first line of the docstring of the command's function."""
        return (self.function.__doc__ or "").splitlines()[0]

    def parser(self) -> ArgumentParser:
        """Return the parser of this command's arguments."""
        parser = new_parser(description=self.summary)
        if self.arguments is None:
            parser.add_function_arguments(self.function, as_positional=True)
        else:
            self.arguments(parser)
        return parser

    def option_names(self) -> list[str]:
        """Return every option string of this command, such as `--config`."""
        return option_names(self.parser())


def new_parser(**kwargs: Any) -> ArgumentParser:
    """Return a parser that raises errors instead of exiting, and accepts no abbreviated option names."""
    set_loader(_SETTINGS, _load_value, exceptions=(InputError,))
    return ArgumentParser(exit_on_error=False, allow_abbrev=False, print_config=None, parser_mode=_SETTINGS, **kwargs)


def _load_value(text: str) -> Any:
    """Parse the value of an option, or a settings file, as YAML; a mapping of names alone, such as `a:`, is text."""
    value = load_yaml(text)
    is_text = isinstance(value, dict) and value and all(item is None for item in value.values())
    return text if is_text else value


def option_names(parser: ArgumentParser) -> list[str]:
    """Return every option string of a parser, such as `--config`."""
    return [option for action in parser._actions for option in action.option_strings]
