"""Every row of docs/coverage.md has tests that carry its number, and every number is a row."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs/coverage.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\w+\.\d+) \|", PAGE, re.MULTILINE)


def marked_rows() -> Counter[str]:
    """Count the tests of each row: `@pytest.mark.row("3.4")` on a test or a class of tests."""
    rows: Counter[str] = Counter()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test"):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.row":
                        rows.update(ast.literal_eval(argument) for argument in mark.args)
    return rows


MARKED = marked_rows()


def test_the_page_has_every_row_that_is_asked_for():
    asked = [f"3.{n}" for n in range(1, 27) if n != 22] + [f"4.{n}" for n in range(1, 12)]
    assert not set(asked) - set(ROWS)
    assert len(ROWS) == len(set(ROWS))


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_test(row: str):
    assert MARKED[row], f'no test is marked @pytest.mark.row("{row}")'


def test_every_mark_is_a_row():
    assert not set(MARKED) - set(ROWS)
