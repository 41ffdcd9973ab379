"""docs/coverage.md names tests that exist, and every row that is asked for."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/coverage.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def test_every_test_named_exists():
    sources = {file: (ROOT / file).read_text(encoding="utf-8") for file in {file for file, _ in NAMED}}
    assert len(NAMED) > 80
    absent = [f"{file}::{name}" for file, name in NAMED if not re.search(rf"(def|class) {name}\b", sources[file])]
    assert not absent
    assert PAGE.count("tests/") - 1 == len(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)), "one is misspelt"


@pytest.mark.parametrize("row", [f"3.{n}" for n in range(1, 27) if n != 22] + [f"4.{n}" for n in range(1, 12)])
def test_every_row_has_a_test(row: str):
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {row} |")]
    assert "::" in line
