"""JSON files that are damaged or hostile are refused with the path of the key."""

from pathlib import Path

import pytest

from defectlab.utils.json_files import MAX_BYTES, MAX_DEPTH, parse_json, read_json
from defectlab.utils.json_object import JsonTypeError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"[" * 100_000 + b"]" * 100_000, "nested deeper than 64", id="deeper than the parser"),
        pytest.param(b'{"a": ' * 65 + b"1" + b"}" * 65, "nested deeper than 64", id="deeper than records"),
        pytest.param(b'{"a": {"b": [0, NaN]}}', r"^a.b\[1\] is nan, no finite number", id="NaN"),
        pytest.param(b'{"a": 1e999}', "^a is inf, no finite number", id="infinity"),
        pytest.param(b'{"a": 99999999999999999999}', "^a is a number beyond 64 bits", id="a huge number"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "number of thousands of digits", id="thousands of digits"),
        pytest.param(b'{"a": "b\\u0000"}', "^a holds a NUL character", id="NUL"),
        pytest.param(b'{"a\\u0000": 1}', "has a key with a NUL character", id="NUL in a key"),
        pytest.param('{"a": 1}'.encode("utf-16"), r"no UTF-8 text \(byte 0\)", id="another encoding"),
        pytest.param(b'{"a": ', "no JSON", id="half a file"),
        pytest.param(b"", "no JSON", id="an empty file"),
    ],
)
def test_hostile_json_is_refused(content: bytes, message: str):
    with pytest.raises(JsonTypeError, match=message):
        parse_json(content)


def test_a_file_of_gigabytes_is_refused_unread(tmp_path: Path):
    file = tmp_path / "run.json"
    with file.open("wb") as opened:
        opened.truncate(MAX_BYTES + 1)
    with pytest.raises(JsonTypeError, match=f"{MAX_BYTES + 1} bytes, more than DefectLab writes"):
        read_json(file)


def test_what_is_within_the_limits_comes_through():
    assert parse_json(b'{"a": [1, 2.5, null, "\\ud83d\\ude00", true]}') == {"a": [1, 2.5, None, "\U0001f600", True]}
    assert parse_json(b'"\\udcff.png"') == "\udcff.png"  # the name of a file that is not UTF-8
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
