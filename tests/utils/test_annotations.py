import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from defectlab.utils.annotations import check_annotated, check_section
from defectlab_runtime.errors import OptionError


def takes(
    layers: Sequence[str],
    ratio: float | None = None,
    size: int | tuple[int, int] | None = None,
    flag: bool = False,
    kind: Literal["a", "b"] = "a",
    more: Mapping[str, Any] | None = None,
    other: object = None,
) -> None: ...


PARAMETERS = inspect.signature(takes).parameters


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": "layer2"}, r"model.layers must be a list of which each is text, got 'layer2'"),
        ({"layers": [1]}, r"model.layers must be a list of which each is text, got \[1\]"),
        ({"ratio": "0.1"}, r"model.ratio must be a number, got '0.1'"),
        ({"ratio": True}, r"model.ratio must be a number, got True"),
        ({"size": 1.5}, r"model.size must be a whole number or a list of which each is a whole number, got 1.5"),
        ({"flag": 1}, r"model.flag must be true or false, got 1"),
        ({"kind": "c"}, r"model.kind must be 'a' or 'b', got 'c'"),
        ({"more": [1]}, r"model.more must be a mapping, got"),
        ({"flag": None}, r"model.flag must be true or false, got None"),
    ],
)
def test_a_value_of_another_type_is_named_by_its_path(given: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        check_annotated("model", given, PARAMETERS)


def test_values_of_an_allowed_type_pass():
    good = {"layers": ["a"], "ratio": 1, "size": [1, 2], "flag": True, "kind": "b", "more": {}, "other": [1], "new": 3}
    check_annotated("model", good, PARAMETERS)
    check_annotated("model", {"ratio": None, "size": None, "more": None}, PARAMETERS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": float("inf")}, "trainer.lr is inf: a number must be finite"),
        ({"a": [{"b": float("nan")}]}, r"trainer.a\[0\].b is nan"),
        ({"a": -(10**400)}, "trainer.a is a whole number of 1329 bits"),
        ({1: 2}, "trainer has an option that is no text: 1"),
    ],
)
def test_numbers_that_nothing_can_work_with_are_named(given: dict[Any, Any], message: str):
    with pytest.raises(OptionError, match=message):
        check_section("trainer", given)
    check_section("trainer", {"seed": 2**64 - 1, "lr": 1e300})
