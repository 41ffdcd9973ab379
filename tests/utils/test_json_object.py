from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from defectlab.utils.json_object import JsonObject, JsonTypeError, json_key


@dataclass(frozen=True, kw_only=True)
class Inner(JsonObject):
    value: float | None
    words: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Outer(JsonObject):
    name: str
    count: int
    kind: Literal["a", "b"] = "a"
    size: str | list[int] = "input"
    inner: Inner | None = field(default=None, metadata=json_key("part"))
    table: Mapping[str, Inner] = field(default_factory=dict)


WHOLE: dict[str, Any] = {
    "count": 3,
    "their": {"own": [1, None]},
    "name": "x",
    "part": {"value": 1, "note": "kept"},
    "size": [3, 4],
    "table": {"one": {"value": None, "words": []}},
}


def test_an_object_is_written_as_it_was_read():
    read = Outer.from_dict(WHOLE)
    assert (read.count, read.inner.value, read.table["one"].words) == (3, 1, [])
    assert read.to_dict() == WHOLE
    assert list(read.to_dict()) == list(WHOLE), "the order stays too"
    assert Outer.from_dict({"name": "x", "count": 3}).to_dict() == {"name": "x", "count": 3}


def test_changes_are_checked_and_written_even_where_they_are_the_default():
    read = Outer.from_dict(WHOLE)
    changed = read.replaced(kind="a", inner=Inner(value=2.5), mine=[1])
    assert changed.to_dict() == WHOLE | {"kind": "a", "part": {"value": 2.5}, "mine": [1]}
    assert read.replaced(part={"value": None}).inner == Inner(value=None), "a JSON key names its field too"
    assert read.to_dict() == WHOLE
    with pytest.raises(JsonTypeError, match=r"^part\.value is text \('much'\), not a number or null$"):
        read.replaced(inner={"value": "much"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 1.5}, r"count is a number \(1\.5\), not a whole number"),
        ({"count": True}, r"count is true or false \(True\), not a whole number"),
        ({"name": None}, "name is null, not text"),
        ({"kind": "c"}, r"kind is text \('c'\), not one of a, b"),
        ({"size": [1, "2"]}, r"size\[1\] is text"),
        ({"part": {}}, r"part\.value is missing"),
        ({"part": 3}, r"part is a whole number \(3\), not an object"),
        ({"table": {"one": {"value": 1, "words": "w"}}}, r"table\.one\.words is text \('w'\), not a list"),
        ({"table": []}, "table is a list, not an object"),
    ],
)
def test_a_wrong_type_is_named_with_its_path(change: dict[str, Any], message: str):
    with pytest.raises(JsonTypeError, match=f"^{message}"):
        Outer.from_dict(WHOLE | change)
