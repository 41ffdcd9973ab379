"""YAML as people mean it."""

import pytest

from defectlab.utils.config_files import as_yaml, load_yaml


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
