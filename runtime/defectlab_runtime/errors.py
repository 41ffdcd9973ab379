"""Errors that a user can fix: each message names the problem, the allowed values and the fix."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Raised for unusable input; base class of all errors that a user can fix.

    The command line prints the message without a traceback and exits with 2; a notebook shows the message alone.
    """

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows instead of a traceback, which would hide the message."""
        return [f"{type(self).__name__}: {self}"]


class DataError(InputError):
    """Raised for images, masks or folders that cannot be used as they are."""


class WeightsError(InputError):
    """Raised for a weights file that is missing, damaged or made for another architecture."""


class DescriptionError(InputError):
    """Raised for an exported file that carries no description of its model, a damaged one or one of a newer format."""


class BusyError(InputError):
    """Raised where another process is doing the same work at this moment."""


class OptionError(InputError, TypeError):
    """Raised for an option that does not exist or has an invalid value."""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest allowed name, or an empty string.

    >>> did_you_mean("layer22", ["layer1", "layer2"])
    " Did you mean 'layer2'?"
    >>> did_you_mean("zzz", ["layer1"])
    ''
    """
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Return the message that `name` is no known `kind`, with the closest and all allowed names.

    >>> unknown_name("layer", "layer5", ["layer1", "layer2"])
    "Unknown layer 'layer5'. Did you mean 'layer2'? Available: layer1, layer2."
    """
    names = list(allowed)
    return f"Unknown {kind} '{name}'.{did_you_mean(name, names)} Available: {', '.join(names)}."
