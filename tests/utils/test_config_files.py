"""YAML as people mean it."""

from pathlib import Path

import pytest

from defectlab.utils.config_files import as_yaml, load_yaml, read_yaml
from defectlab_runtime.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), ("-2.5e+1", -25.0), (".5e1", 5.0), ("1.0e-3", 0.001),
        ("'1e-3'", "1e-3"), ("'no'", "no"), ("no", False), ("on", True), ("~", None), ("12", 12),
        ("[a, 1e-2]", ["a", 0.01]), ("1e", "1e"), ("e5", "e5"), ("a1e5", "a1e5"), ("1e-3x", "1e-3x"),
    ],
)  # fmt: skip
def test_values(text: str, value: object):
    found = load_yaml(text)
    assert found == value
    assert type(found) is type(value)
    assert load_yaml(as_yaml({"a": found})) == {"a": value}


@pytest.mark.parametrize("encoding", ["utf-16", "cp037"])
def test_a_file_in_another_encoding_is_refused(tmp_path: Path, encoding: str):
    file = tmp_path / "a.yaml"
    file.write_bytes("data: {root: é}".encode(encoding))
    with pytest.raises(InputError, match="no UTF-8 text"):
        read_yaml(file)


def test_a_large_file_is_refused_unread(tmp_path: Path):
    file = tmp_path / "a.yaml"
    with file.open("wb") as opened:
        opened.truncate(2**40)
    with pytest.raises(InputError, match="1099511627776 bytes, more than settings have"):
        read_yaml(file)
