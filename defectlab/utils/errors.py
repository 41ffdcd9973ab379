"""Errors that a user can fix: each message says what was wrong, what is allowed and the fix."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """An input that cannot work, found before any long work starts.

    The command line prints the message without a traceback and exits with 2; a notebook shows the message alone.
    """

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback: forty frames would hide the fix."""
        return [f"{type(self).__name__}: {self}"]


class DataError(InputError):
    """Images, masks or folders that cannot be used as they are."""


class WeightsError(InputError):
    """A weights file that is missing, damaged or made for another architecture."""


class BusyError(InputError):
    """The same work is being done by another process at this moment."""


class OptionError(InputError, TypeError):
    """An option that does not exist or has a value that cannot work."""


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
    """Say that `name` is no known `kind`, which are allowed and which is closest.

    >>> unknown_name("layer", "layer5", ["layer1", "layer2"])
    "Unknown layer 'layer5'. Did you mean 'layer2'? Available: layer1, layer2."
    """
    names = list(allowed)
    return f"Unknown {kind} '{name}'.{did_you_mean(name, names)} Available: {', '.join(names)}."
