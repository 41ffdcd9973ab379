"""Hostile YAML is refused before it is built, with the path of the key or the line; settings come through."""

import re

import pytest

from defectlab.utils.yaml_loader import MAX_BYTES, MAX_DEPTH, MAX_VALUES, load_settings
from defectlab_runtime.errors import InputError

NINE = ", ".join(["*a{}"] * 9)
LISTS = "[&a0 [x], " + ", ".join(f"&a{n + 1} [{NINE.replace('{}', str(n))}]" for n in range(20)) + "]"
MERGES = "a0: &a0 {k: 1}\n" + "\n".join(
    f"a{n + 1}: &a{n + 1} {{<<: [{NINE.replace('{}', str(n))}]}}" for n in range(20)
)
CHAIN = "a0: &a0 [x]\n" + "\n".join(f"a{n + 1}: &a{n + 1} [*a{n}]" for n in range(MAX_DEPTH))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(LISTS, "more than 10000 values, aliases written out", id="aliases that multiply"),
        pytest.param(MERGES, "more than 10000 values, aliases written out", id="merges that multiply"),
        pytest.param(CHAIN, "nested deeper than 32 levels", id="a chain of aliases"),
        pytest.param("[" * 100_000, "nested deeper than 32 levels at line 1", id="a deep list"),
        pytest.param("&a {b: *a}", "contains itself by an alias", id="a value in itself"),
        pytest.param("[" + "1," * MAX_VALUES + "]", "more than 10000 values", id="many values"),
        pytest.param("x" * (MAX_BYTES + 1), "262145 bytes are more", id="a long text"),
        pytest.param("a: !!python/object/apply:os.system [x]", "!!python/object/apply:os.system", id="python tag"),
        pytest.param("a: !!binary eA==", "the tag !!binary at line 1, column 4", id="a tag of bytes"),
        pytest.param("a: !!int x", "'x' at line 1, column 4 is no int", id="no number"),
        pytest.param("a: " + "9" * 5000, "is no int", id="a number of 5000 digits"),
        pytest.param("a: {b: [1, 99999999999999999999]}", "a.b[1] must be a number of at most", id="a huge number"),
        pytest.param("a: {b: [0, .nan]}", "a.b[1] must be a finite number, got nan", id="NaN"),
        pytest.param("a: {b: 1e999}", "a.b must be a finite number, got inf", id="infinity"),
        pytest.param("a: 1\na: 2", "the key 'a' is there a second time at line 2", id="a key twice"),
        pytest.param("a: {no: 1}", "no text (bool): put 'no' in quotes", id="a key of true or false"),
        pytest.param("{1: 2}", "no text (int): put '1' in quotes", id="a number as key"),
        pytest.param("? [a, b]\n: 1", "no text (seq)", id="a list as key"),
        pytest.param('a: "b\\0c"', "a has characters that no setting has", id="a control character"),
        pytest.param('a: "\\ud800"', "a has characters that no setting has", id="half a surrogate pair"),
    ],
)
def test_hostile_text_is_refused_with_its_place(text: str, message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        load_settings(text)


def test_aliases_and_merges_of_a_person_are_written_out():
    text = "base: &b {lr: 1e-3, layers: [a]}\nfirst: {<<: *b, lr: 2}\nsecond: [*b, *b]"
    base = {"lr": 0.001, "layers": ["a"]}
    assert load_settings(text) == {"base": base, "first": {"lr": 2, "layers": ["a"]}, "second": [base, base]}


def test_a_merge_of_what_itself_merges_and_overrides_is_no_key_twice():
    text = "deeper:\n  root: &root {lr: 1, epochs: 2}\n  base: &base {<<: *root, lr: 3}\nchild: {<<: *base, epochs: 5}"
    base = {"lr": 3, "epochs": 2}
    wanted = {"deeper": {"root": {"lr": 1, "epochs": 2}, "base": base}, "child": {"lr": 3, "epochs": 5}}
    assert load_settings(text) == wanted


def test_a_date_and_an_equals_sign_are_text():
    assert load_settings("[2024-02-31, 2024-01-01 10:00:00, =]") == ["2024-02-31", "2024-01-01 10:00:00", "="]


def test_a_file_at_the_limits_is_read():
    assert len(load_settings("[" + "1," * (MAX_VALUES - 1) + "]")) == MAX_VALUES - 1
    nested = load_settings("[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1))
    for _ in range(MAX_DEPTH - 1):
        (nested,) = nested
    assert nested == 1
