"""Values of a settings file compared with the annotations of the function that is to take them."""

import inspect
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from defectlab_runtime.errors import OptionError

LARGEST = 2**64  # no library takes a larger whole number; seeds of torch go up to it


def check_section(path: str, values: Mapping[Any, Any]) -> None:
    """Check that the options of a section have text as names, and that every number in it can be worked with.

    Raises:
        OptionError: With the path of the first that does not, such as `model.lr`.

    >>> check_section("model", {"image_size": [64, float("nan")]})
    Traceback (most recent call last):
    defectlab_runtime.errors.OptionError: model.image_size[1] is nan: a number must be finite.
    """
    for key in values:
        if not isinstance(key, str):
            raise OptionError(f"{path} has an option that is no text: {_short(key)}.")
    for where, value in _leaves(path, values):
        if isinstance(value, float) and not math.isfinite(value):
            raise OptionError(f"{where} is {value}: a number must be finite.")
        if isinstance(value, int) and abs(value) >= LARGEST:
            raise OptionError(f"{where} is a whole number of {value.bit_length()} bits: at most 64 can be used.")


def check_annotated(path: str, values: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Check plain values by the annotations of the parameters that get them; other annotations are passed over.

    Raises:
        OptionError: With the path of the first of another type, and the types allowed.
    """
    for name, value in values.items():
        annotation = parameters[name].annotation if name in parameters else Any
        wanted = [one for one in _members(annotation) if _is_plain(one)]
        if wanted and Any not in _members(annotation) and not any(_fits(value, one) for one in wanted):
            allowed = " or ".join(dict.fromkeys(_words(one) for one in wanted if one is not type(None)))
            raise OptionError(f"{path}.{name} must be {allowed}, got {_short(value)}.")


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}", item)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _leaves(f"{path}[{place}]", item)
    else:
        yield path, value


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of an annotation, without their nesting."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(one for member in get_args(annotation) for one in _members(member))
    return (annotation,)


def _is_plain(annotation: Any) -> bool:
    return annotation in _WORDS or get_origin(annotation) in (Literal, list, tuple, dict, Sequence, Mapping)


def _fits(value: Any, annotation: Any) -> bool:
    kind, inner = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Literal:
        return value in inner
    if kind in (list, tuple, Sequence):
        items = [one for member in inner if member is not ... for one in _members(member)]
        known = all(map(_is_plain, items))
        return isinstance(value, list | tuple) and (
            not items or not known or all(any(_fits(item, one) for one in items) for item in value)
        )
    if kind in (dict, Mapping):
        return isinstance(value, Mapping)
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, str | Path if kind is Path else kind)


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
    type(None): "null",
    list: "a list",
    dict: "a mapping",
}


def _words(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if annotation in _WORDS:
        return _WORDS[annotation]
    if get_origin(annotation) in (dict, Mapping):
        return "a mapping"
    items = [one for member in get_args(annotation) if member is not ... for one in _members(member)]
    return "a list" + (f" of which each is {' or '.join(dict.fromkeys(map(_words, items)))}" if items else "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
