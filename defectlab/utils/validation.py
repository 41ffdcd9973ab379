"""Validation of options, by name and value, before anything is built or read."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, ParamSpec, TypeVar, get_type_hints

from defectlab.utils.json_object import JsonTypeError, value_reader
from defectlab_runtime.errors import OptionError, did_you_mean

P = ParamSpec("P")
T = TypeVar("T")


def check_option_names(given: Iterable[str], allowed: Iterable[str], where: str) -> None:
    """Check that every option name exists; an unknown name is reported with the closest existing name.

    Raises:
        OptionError: Names every unknown option at once.

    >>> check_option_names(["max_epoch"], ["max_epochs"], "Engine")
    Traceback (most recent call last):
    defectlab_runtime.errors.OptionError: Engine has no option 'max_epoch'. Did you mean 'max_epochs'?
    """
    names = list(allowed)
    unknown = [str(name) for name in given if name not in names]
    if unknown:
        raise OptionError("\n".join(f"{where} has no option '{name}'.{did_you_mean(name, names)}" for name in unknown))


def check_types(options: type, given: Mapping[str, Any], path: str = "") -> None:
    """Check the types of options in a settings file by the annotations of the dataclass `options`; null is the default.

    Raises:
        OptionError: The first of another type, with its path below `path`.

    >>> class Options:
    ...     sizes: list[int]
    >>> check_types(Options, {"sizes": [1, "a"]}, "model")
    Traceback (most recent call last):
    defectlab_runtime.errors.OptionError: model.sizes[1] is text ('a'), not a whole number.
    """
    types = get_type_hints(options)
    for key, value in given.items():
        if value is not None and key in types:
            try:
                value_reader(types[key])(value)
            except JsonTypeError as error:
                where = error.below(key)
                raise OptionError(f"{where.below(path) if path else where!s}.") from None


def section_options(section: str, data: Any, options: type, example: str) -> dict[str, Any]:
    """Return the options of a section of a YAML file that are not null, named as fields of the dataclass `options`.

    Raises:
        OptionError: The section is no mapping (the message shows `example`), or has an option that does not exist.
    """
    if not isinstance(data, Mapping):
        raise OptionError(f"{section} must be a mapping such as `{example}`, got {data!r}.")
    check_option_names(data, [item.name for item in fields(options)], f"Section '{section}'")
    return {key: value for key, value in data.items() if value is not None}


def checked_options(init: Callable[P, None]) -> Callable[P, None]:
    """Wrap a constructor so that keyword names, and the values of keywords annotated `bool`, are validated."""
    parameters = inspect.signature(init).parameters
    allowed = [name for name in parameters if name != "self"]
    owner = init.__qualname__.split(".")[0]

    @functools.wraps(init)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        check_option_names(kwargs, allowed, owner)
        check_flags(owner, kwargs, parameters)
        init(*args, **kwargs)

    return wrapper


def with_signature(signature: inspect.Signature) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Wrap a function so that it is called with another signature and receives all parameters by name.

    An unknown keyword is an `OptionError` that names the closest known one.
    """

    def wrap(function: Callable[..., T]) -> Callable[..., T]:
        owner = function.__qualname__.split(".")[0]
        names = [name for name in signature.parameters if name != "self"]

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> T:
            check_option_names(kwargs, names, owner)
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise OptionError(f"{owner}: {error}.") from None
            bound.apply_defaults()
            return function(**bound.arguments)

        vars(wrapper)["__signature__"] = signature
        return wrapper

    return wrap


def check_flags(where: str, given: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Validate the options annotated `bool` or `bool | None`, as the text "False" would be true in Python.

    Raises:
        OptionError: With the value and where it was given.
    """
    for name, value in given.items():
        annotation = parameters[name].annotation if name in parameters else None
        optional = annotation == (bool | None)
        if annotation is bool or (optional and value is not None):
            check_flag(where, name, value)


def check_flag(where: str, name: str, value: Any) -> None:
    """Validate that an option is a boolean.

    Raises:
        OptionError: With the value and where it was given.
    """
    if not isinstance(value, bool):
        raise OptionError(f"{where}: {name} must be true or false, got {value!r}.")


def check_integer(where: str, name: str, value: Any, *, low: int, high: int | None = None) -> None:
    """Validate an integer option of at least `low`, and at most `high`.

    Raises:
        OptionError: With the value and where it was given.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        limit = "" if high is None else f" and at most {high}"
        raise OptionError(f"{where}: {name} must be a whole number of at least {low}{limit}, got {value!r}.")


def check_range(
    where: str, name: str, value: Any, *, low: float, high: float | None = None, open_low: bool = False
) -> None:
    """Validate a number in [low, high], or in (low, high] with `open_low`.

    Raises:
        OptionError: With the value, the range and where it was given.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    above = number and (value > low if open_low else value >= low)
    below = number and (high is None or value <= high)
    if not (above and below):
        interval = f"{'(' if open_low else '['}{low}, {'inf)' if high is None else f'{high}]'}"
        raise OptionError(f"{where}: {name} must be a number in {interval}, got {value!r}.")
