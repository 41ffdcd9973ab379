"""Dataclasses for JSON objects: types are checked, unknown keys and the order of keys are preserved."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

Reader = Callable[[Any], Any]

_WORDS: dict[Any, str] = {
    NoneType: "null",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
_CONTAINERS: dict[Any, str] = {list: "a list", dict: "an object"}


class JsonTypeError(ValueError):
    """A JSON value has the wrong type, or a required key is missing. The message begins with the path of the key."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(f"{path} {problem}" if path else problem)
        self.problem = problem
        self.path = path

    def below(self, key: str | int) -> "JsonTypeError":
        """Return this error with `key`, of the enclosing object or list, put before its path."""
        inner = f".{self.path}" if self.path and not self.path.startswith("[") else self.path
        return JsonTypeError(self.problem, (f"[{key}]" if isinstance(key, int) else key) + inner)


def json_key(name: str) -> dict[str, str]:
    """Return the metadata of a dataclass field whose key in the JSON object has another name."""
    return {"key": name}


@dataclass(frozen=True, kw_only=True)
class JsonObject:
    """Base class of the dataclasses that represent JSON objects.

    A field without a default is required and always written. One with a default is written where its key was read,
    where `replaced` set it, or where it differs from the default, so that reading and writing changes nothing.

    Attributes:
        extra: Keys of the object that the class does not know, kept as they are.
        order: The object's keys as they were read, and then those set since.
    """

    extra: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Build an object, including nested objects, from a JSON object.

        Raises:
            JsonTypeError: A required key is missing or a value has another type; it names the key.
        """
        if not isinstance(data, Mapping):
            raise JsonTypeError(f"is {_describe(data)}, not an object")
        known = _fields(cls)
        values: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for key, value in data.items():
            entry = known.get(key)
            if entry is None:
                extra[key] = value
                continue
            try:
                values[entry.name] = entry.read(value)
            except JsonTypeError as error:
                raise error.below(key) from None
        for key, entry in known.items():
            if entry.required and entry.name not in values:
                raise JsonTypeError("is missing", key)
        return cls(**values, extra=extra, order=tuple(data))

    def to_dict(self) -> dict[str, Any]:
        """Convert this object, including nested objects, to plain JSON data."""
        return {key: self.plain_value(key) for key in self.written_keys()}

    def written_keys(self) -> list[str]:
        """Return the keys that `to_dict` writes, in order."""
        known, order = _fields(type(self)), dict.fromkeys(self.order)
        for key, entry in known.items():
            if key not in order and (entry.required or getattr(self, entry.name) != entry.default()):
                order[key] = None
        return [key for key in order | dict.fromkeys(self.extra) if key in known or key in self.extra]

    def plain_value(self, key: str) -> Any:
        """Return the value of one key as plain JSON data."""
        entry = _fields(type(self)).get(key)
        return _plain(self.extra[key] if entry is None else getattr(self, entry.name))

    def replaced(self, **changes: Any) -> Self:
        """Return a copy with some fields, or extra keys, set to typed parts or to plain JSON data.

        Raises:
            JsonTypeError: A value has another type; it names the field.
        """
        known = _fields(type(self))
        key_of = {entry.name: key for key, entry in known.items()}
        values: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for key, value in {key_of.get(name, name): value for name, value in changes.items()}.items():
            if key not in known:
                extra[key] = value
                continue
            try:
                values[known[key].name] = known[key].read(value)
            except JsonTypeError as error:
                raise error.below(key) from None
        order = tuple(dict.fromkeys((*self.order, *(key_of.get(name, name) for name in changes))))
        return replace(self, **values, extra={**self.extra, **extra}, order=order)


@dataclass(frozen=True)
class _Entry:
    """The reader of one key of a JSON object, and the dataclass field that holds the value."""

    name: str
    read: Reader
    required: bool
    default: Callable[[], Any]


_FIELDS: dict[type, dict[str, _Entry]] = {}


def _fields(cls: type[JsonObject]) -> dict[str, _Entry]:
    """Return the fields of a class by their JSON keys."""
    if cls not in _FIELDS:
        types, entries = get_type_hints(cls), {}
        for one in fields(cls):
            if one.name not in ("extra", "order"):
                required = one.default is MISSING and one.default_factory is MISSING
                key = one.metadata.get("key", one.name)
                entries[key] = _Entry(one.name, value_reader(types[one.name]), required, _default(one))
        _FIELDS[cls] = entries
    return _FIELDS[cls]


def _default(one: Field[Any]) -> Callable[[], Any]:
    return one.default_factory if one.default_factory is not MISSING else lambda: one.default


@cache
def value_reader(annotation: Any) -> Reader:
    """Return a function that validates a value against a type annotation and converts nested JSON objects."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return lambda value: value
    if origin in (Union, UnionType):
        return _union_reader(arguments)
    if origin is Literal:
        return _literal_reader(arguments)
    if origin in (list, tuple, Sequence):  # a tuple of any length of its first type
        return _list_reader(value_reader(arguments[0]))
    if origin in (dict, Mapping):
        return _mapping_reader(value_reader(arguments[1]))
    if isinstance(annotation, type) and issubclass(annotation, JsonObject):
        return lambda value: value if isinstance(value, annotation) else annotation.from_dict(value)
    return _scalar_reader((annotation,))


def _union_reader(members: Sequence[Any]) -> Reader:
    """Return a reader of scalars and, of containers, at most one that is a list and one that is an object."""
    if all(member in _WORDS for member in members):
        return _scalar_reader(members)
    scalars = [member for member in members if member in _WORDS]
    others = [member for member in members if member not in _WORDS]
    read_scalar, readers = _scalar_reader(scalars), {_is_list(other): value_reader(other) for other in others}

    def read(value: Any) -> Any:
        if isinstance(value, tuple(scalars)):
            return read_scalar(value)
        return (readers.get(isinstance(value, list | tuple)) or next(iter(readers.values())))(value)

    return read


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (list, tuple, Sequence)


def _scalar_reader(members: Sequence[Any]) -> Reader:
    exact = frozenset((*members, int) if float in members else members)  # JSON writes 1.0 as it likes
    wanted = " or ".join(_WORDS[member] for member in members)

    def read(value: Any) -> Any:
        if type(value) in exact:
            return value
        if isinstance(value, tuple(exact)) and (bool in exact or not isinstance(value, bool)):
            return value
        raise JsonTypeError(f"is {_describe(value)}, not {wanted}")

    return read


def _literal_reader(allowed: Sequence[Any]) -> Reader:
    def read(value: Any) -> Any:
        if value in allowed:
            return value
        raise JsonTypeError(f"is {_describe(value)}, not one of {', '.join(map(str, allowed))}")

    return read


def _list_reader(read_item: Reader) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise JsonTypeError(f"is {_describe(value)}, not a list")
        items = []
        for place, item in enumerate(value):
            try:
                items.append(read_item(item))
            except JsonTypeError as error:
                raise error.below(place) from None
        return items

    return read


def _mapping_reader(read_item: Reader) -> Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise JsonTypeError(f"is {_describe(value)}, not an object")
        items = {}
        for key, item in value.items():
            try:
                items[key] = read_item(item)
            except JsonTypeError as error:
                raise error.below(key) from None
        return items

    return read


def _describe(value: Any) -> str:
    word = _WORDS.get(type(value)) or _CONTAINERS.get(type(value)) or type(value).__name__
    return f"{word} ({short_repr(value)})" if isinstance(value, str | int | float) else word


def short_repr(value: Any, length: int = 60) -> str:
    """Return the `repr` of a value for an error message, cut to `length`; numbers of thousands of digits included."""
    if isinstance(value, int) and value.bit_length() > 4 * length:
        return "a number of more digits than fit here"
    text = repr(value[: 2 * length] if isinstance(value, str | bytes) else value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _plain(value: Any) -> Any:
    if isinstance(value, JsonObject):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
