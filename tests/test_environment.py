"""One training in environments of others: no home, an ASCII locale, `python -O`, warnings as errors, little memory."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.datasets import make_parts

ROOT = Path(__file__).parents[1]
IN_ENGLISH = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
OUR_WARNINGS = "import warnings; warnings.filterwarnings('error', module='defectlab'); "
RUN = "import sys; from defectlab.cli import main; sys.exit(main())"


def train(home: Path, data: Path, *more: str, python: tuple[str, ...] = (), code: str = "", **environment: str):
    """Train PaDiM in a process of its own."""
    arguments = ["train", "--data.root", str(data), "--data.num_workers", "0", "--backbone.name", "resnet18"]
    arguments += ["--backbone.weights", "random", "--model.name", "padim", "--model.image_size", "[64,64]"]
    arguments += ["--trainer.accelerator", "cpu", *more]
    env = {"PATH": os.environ["PATH"], "DEFECTLAB_HOME": str(home), "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, *python, "-c", code + RUN, *arguments]
    return subprocess.run(command, env=env, cwd=home, check=False, capture_output=True, text=True)


def metrics(home: Path) -> dict[str, float]:
    (file,) = home.glob("results/*/*/[!.]*/run.json")
    return dict(json.loads(file.read_text(encoding="utf-8"))["metrics"])


@pytest.mark.long
def test_environments_of_others_give_the_same_metrics(tmp_path: Path):
    data = make_parts(tmp_path / "pärts")
    ways = {
        "usual": {"HOME": str(tmp_path)},
        "no HOME, LANG=C, ASCII output": IN_ENGLISH,
        "python -O, our warnings as errors": {"python": ("-O",), "code": OUR_WARNINGS},
    }
    found = {}
    for number, (way, options) in enumerate(ways.items()):
        home = tmp_path / str(number)
        home.mkdir()
        done = train(home, data, **options)
        assert done.returncode == 0, (way, done.stderr)
        assert "Traceback" not in done.stderr, way
        found[way] = metrics(home)
    assert found["usual"]["image_AUROC"] is not None
    assert all(one == found["usual"] for one in found.values())


@pytest.mark.long
def test_64_mb_of_shared_memory_end_with_what_helps(tmp_path: Path):
    small = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*small, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    data = make_parts(tmp_path / "parts", train=30)
    code = f"import os, sys; os.environ.get('SMALL') or os.execvpe({small[0]!r}, {small!r} + sys.orig_argv, "
    code += "{**os.environ, 'SMALL': '1'}); "
    more = ["--model.image_size", "[512,512]", "--data.num_workers", "2", "--data.train_batch_size", "24"]
    done = train(tmp_path, data, *more, code=code)
    assert done.returncode == 2, done.stderr
    assert "Set data.num_workers to 0" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_check_of_input_is_an_assert():
    """`python -O` removes assertions: those of the packages only tell the type checker what is known."""
    others = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for package in ("defectlab", "runtime/defectlab_runtime")
        for file in (ROOT / package).rglob("*.py")
        for tree in [ast.parse(file.read_text(encoding="utf-8"))]
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert) and node not in tree.body and not _narrows_a_type(node.test)
    ]
    assert others == []


def _narrows_a_type(test: ast.expr) -> bool:
    """Return whether a test is `x is not None` or `isinstance(x, ...)`."""
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], ast.IsNot) and ast.unparse(test.comparators[0]) == "None"
    return isinstance(test, ast.Call) and ast.unparse(test.func) == "isinstance"
