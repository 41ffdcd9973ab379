"""Records are read and written by `results/run` alone, and by fields: no other file knows the keys of run.json."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = ("defectlab/results/run/", "tests/results/run/")
FILES = sorted(
    file
    for folder in ("defectlab", "benchmarks", "images", "tests")
    for file in (ROOT / folder).rglob("*.py")
    if not file.relative_to(ROOT).as_posix().startswith(OWN)
)
READERS = {"loads", "load", "open", "read_text", "read_bytes", "write_text", "write_bytes", "write_json"}


def offences(source: str, *, may_open: bool) -> Iterator[str]:
    """Yield where a record is indexed by a string, or run.json is opened, with the line."""
    tree = ast.parse(source)
    for scope in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))):
        names = {
            target.id
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and _is_record(node.value, set())
            for target in node.targets
            if isinstance(target, ast.Name) and scope is not tree
        }
        for node in ast.walk(scope):
            indexed = _indexed(node)
            opened = isinstance(node, ast.Call) and _called(node) in READERS and "run.json" in _texts(node)
            if (indexed is not None and _is_record(indexed, names)) or (opened and not may_open):
                yield f"line {node.lineno}: {ast.unparse(node)}"


def _indexed(node: ast.AST) -> ast.expr | None:
    """What is indexed by a text: x of x["key"] and of x.get("key")."""
    if isinstance(node, ast.Subscript) and _is_text(node.slice):
        return node.value
    if isinstance(node, ast.Call) and _called(node) == "get" and node.args and _is_text(node.args[0]):
        return node.func.value if isinstance(node.func, ast.Attribute) else None
    return None


def _is_record(node: ast.expr, names: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in names
    return isinstance(node, ast.Attribute) and node.attr == "record"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _texts(node: ast.AST) -> set[object]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_records_are_read_by_fields_and_opened_in_one_place(file: Path):
    # a test may open the file where it is the file that is tested
    may_open = file.is_relative_to(ROOT / "tests")
    assert not list(offences(file.read_text(encoding="utf-8"), may_open=may_open))


@pytest.mark.parametrize(
    "source",
    [
        'run.record["metrics"]',
        'Run.open(folder).record.get("sweep")',
        'def show(run):\n    record = run.record\n    return record["name"]',
        'json.loads((folder / "run.json").read_text())',
        'write_json(folder / "run.json", {})',
    ],
)
def test_what_is_not_allowed_is_seen(source: str):
    assert list(offences(source, may_open=False))


def test_fields_and_mappings_in_them_are_allowed():
    source = 'run.record.metrics["image_AUROC"], run.record.timings.get("fit"), (folder / "run.json").is_file()'
    assert not list(offences(source, may_open=False))
