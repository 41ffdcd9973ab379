"""A file is written whole or not at all."""

import json
from pathlib import Path

import pytest

from defectlab.utils.files import replacing, write_json
from defectlab.utils.json_files import read_json


def test_a_file_is_whole_or_absent(tmp_path: Path):
    target = tmp_path / "a.json"
    write_json(target, {"a": 1})
    with pytest.raises(ZeroDivisionError), replacing(target) as partial:
        partial.write_text(f"half {1 / 0}")
    assert json.loads(target.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(ValueError, match="JSON"):
        write_json(target, {"a": float("nan")})


def test_json_holds_no_nul_which_readers_refuse(tmp_path: Path):
    write_json(tmp_path / "a.json", {"k\0": ["a\0\0b", "\\u0000 spelled", "\\\0"]})
    assert read_json(tmp_path / "a.json") == {"k\ufffd": ["a\ufffd\ufffdb", "\\u0000 spelled", "\\\ufffd"]}
