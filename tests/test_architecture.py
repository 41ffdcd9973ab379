"""What starts without torch. The layers themselves are a contract in pyproject.toml, held by `make lint`."""

import subprocess
import sys

import pytest


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


HEAVY = "[m for m in 'torch anomalib lightning torchvision timm pandas matplotlib'.split() if m in sys.modules]"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["models", "list"], ["data", "--help"], ["weights", "list"], ["cache", "list"]],
    ids=" ".join,
)
def test_the_command_line_starts_without_torch(arguments: list[str]):
    code = f"""
import sys
from defectlab.cli import main
try:
    main({arguments!r})
except SystemExit as stop:
    assert not stop.code, stop.code
print({HEAVY}, file=sys.stdout)
"""
    assert run_python(code).strip().endswith("[]")


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, defectlab, defectlab.results.run.run, defectlab.experiment; print({HEAVY})"
    assert run_python(code).strip() == "[]"
