"""The loader of YAML settings: plain data only, in limits that keep a hostile text from exhausting time or memory."""

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import yaml

from defectlab.utils.json_files import MAX_WHOLE_NUMBER
from defectlab.utils.json_object import short_repr
from defectlab_runtime.errors import InputError

# Far beyond any settings a person writes; PyYAML reads a text at each of these limits within two seconds.
MAX_BYTES = 2**18
MAX_VALUES = 10_000  # each alias counted with all that it stands for
MAX_DEPTH = 32

# PyYAML follows YAML 1.1, where 1e-3 has no dot and so is text
NUMBER = re.compile(r"^[-+]?(?:\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$")
FLOAT_TAG = "tag:yaml.org,2002:float"
_TEXT_TAGS = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")  # of what is text here: a date, and `=`
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


class SettingsError(InputError):
    """Raised for a YAML text that is valid but no settings; the message has the path of the key or the line."""


class LimitError(SettingsError):
    """Raised for a YAML text that could exhaust time, memory or the stack of a reader."""


class SettingsLoader(yaml.SafeLoader):
    """PyYAML's safe loader of plain data, within limits, where `1e-3` is a number and a date is text."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._deepest = self._values = 0
        self._extents: dict[int, tuple[int, int]] = {}  # id of a complete node -> values and levels in it

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node and count it, and an alias as all that it stands for.

        Raises:
            SettingsError: More values or levels than settings have, a tag of no plain value, or a value in itself.
        """
        mark, is_alias = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        levels, values, deepest = self._depth, self._values, self._deepest
        self._depth += 1
        self._values += 1
        self._deepest = self._depth
        self._check_limits(mark)
        node = super().compose_node(parent, index)
        if is_alias:
            if id(node) not in self._extents:
                raise LimitError(f"the value at {_place(mark)} contains itself by an alias: write it out.")
            contained, height = self._extents[id(node)]
            self._values = values + contained
            self._deepest = levels + height
            self._check_limits(mark)
        elif node is not None:
            if node.tag not in _PLAIN_TAGS:
                raise SettingsError(
                    f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} at {_place(mark)} is none of settings: "
                    "they are text, numbers, true, false, null, lists and mappings."
                )
            self._extents[id(node)] = (self._values - values, self._deepest - levels)
        self._depth = levels
        self._deepest = max(self._deepest, deepest)
        return node

    def _check_limits(self, mark: yaml.Mark) -> None:
        if self._deepest > MAX_DEPTH:
            raise LimitError(f"lists and mappings are nested deeper than {MAX_DEPTH} levels at {_place(mark)}.")
        if self._values > MAX_VALUES:
            raise LimitError(f"there are more than {MAX_VALUES} values, aliases written out, at {_place(mark)}.")

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Convert a node to plain data.

        Raises:
            SettingsError: A scalar that is no value of its type, such as `!!int x`, or a number of a thousand digits.
        """
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
            if isinstance(error, SettingsError) or not isinstance(node, yaml.ScalarNode):
                raise
            kind = node.tag.rpartition(":")[2]
            raise SettingsError(f"{short_repr(node.value)} at {_place(node.start_mark)} is no {kind}.") from error

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping, whose keys must be text and stand once: as written, before `<<` adds keys to override.

        Raises:
            SettingsError: Another key, or one that is there twice.
        """
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                text = f"'{key.value}'" if isinstance(key, yaml.ScalarNode) else "it"
                what = key.tag.rpartition(":")[2]
                raise SettingsError(f"the key at {_place(key.start_mark)} is no text ({what}): put {text} in quotes.")
            if key.value in seen:
                raise SettingsError(
                    f"the key {short_repr(key.value)} is there a second time at {_place(key.start_mark)}."
                )
            seen.add(key.value)
        return node


SettingsLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TEXT_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
SettingsLoader.add_implicit_resolver(FLOAT_TAG, NUMBER, list("-+.0123456789"))


def load_settings(text: str) -> Any:
    """Parse a YAML text and return its plain data.

    Raises:
        yaml.YAMLError: It is no YAML.
        SettingsError: It is beyond a limit, or holds what no setting can be.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise LimitError(f"{size} bytes are more than settings have ({MAX_BYTES}).")
    data = yaml.load(text, Loader=SettingsLoader)
    check_plain(data)
    return data


def check_limits(text: str) -> None:
    """Check that a text, if it is YAML at all, is within the limits, for readers that have none.

    Raises:
        LimitError: It is not.
    """
    try:
        load_settings(text)
    except LimitError:
        raise
    except (SettingsError, yaml.YAMLError):
        pass


def check_plain(data: Any, path: str = "") -> None:
    """Check that every value can be a setting: finite numbers of at most 64 bits, and text without control characters.

    Raises:
        SettingsError: With the path of the key.
    """
    items: Iterable[tuple[str, Any]] = ()
    if isinstance(data, dict):
        items = ((f"{path}.{key}" if path else str(key), value) for key, value in data.items())
        for key in data:
            _check_text(key, f"the key {short_repr(key)}{f' in {path}' if path else ''}")
    elif isinstance(data, list):
        items = ((f"{path}[{place}]", value) for place, value in enumerate(data))
    elif isinstance(data, float) and not math.isfinite(data):
        raise SettingsError(f"{path or 'the value'} must be a finite number, got {data}.")
    elif isinstance(data, int) and not -MAX_WHOLE_NUMBER <= data <= MAX_WHOLE_NUMBER:
        raise SettingsError(f"{path or 'the value'} must be a number of at most {MAX_WHOLE_NUMBER}, got more.")
    elif isinstance(data, str):
        _check_text(data, path or "the value")
    for where, value in items:
        check_plain(value, where)


def _check_text(text: Any, where: str) -> None:
    if isinstance(text, str) and any(_is_control(character) for character in text):
        raise SettingsError(f"{where} has characters that no setting has (control characters): {short_repr(text)}.")


def _is_control(character: str) -> bool:
    """Return whether a character is a control character other than white space, or half of a surrogate pair."""
    return character not in "\t\n\r" and unicodedata.category(character) in ("Cc", "Cs")


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
