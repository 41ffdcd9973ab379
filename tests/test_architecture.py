"""The seams of the project: layers import downwards only, and records are read without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import defectlab

PACKAGE = Path(defectlab.__file__).parent

# A module may import its own layer and lower ones. Longest prefix wins.
LAYERS = {
    "defectlab.errors": 0,
    "defectlab.files": 0,
    "defectlab.fetch": 0,
    "defectlab.options": 0,
    "defectlab.paths": 0,
    "defectlab.settings": 0,
    "defectlab.git_state": 0,
    "defectlab.logs": 0,
    "defectlab.seeds": 0,
    "defectlab.progress": 0,
    "defectlab.quiet": 0,
    "defectlab.telemetry": 0,
    "defectlab.kernels": 1,
    "defectlab.evaluation": 1,
    "defectlab.augmentations": 2,
    "defectlab.data": 2,
    "defectlab.preprocessing": 2,
    "defectlab.backbones": 2,
    "defectlab.results": 2,
    "defectlab.models": 3,
    "defectlab.losses": 4,
    "defectlab.step_clock": 0,
    "defectlab.review": 4,
    "defectlab.expectations": 4,
    "defectlab.prediction_report": 4,
    "defectlab.memory": 4,
    "defectlab.monitoring": 4,
    "defectlab.checkpoints": 4,
    "defectlab.batch_size": 4,
    "defectlab.eda": 4,
    "defectlab.reconstruct": 4,
    "defectlab.loggers": 4,
    "defectlab.features": 3,
    "defectlab.fields_of_view": 4,
    "defectlab.finishing": 4,
    "defectlab.tile_picture": 4,
    "defectlab.recorder": 4,
    "defectlab.trainer_options": 4,
    "defectlab.bookkeeping": 4,
    "defectlab.engine": 4,
    "defectlab.predict": 4,
    "defectlab.pimo": 4,
    "defectlab.scoring": 4,
    "defectlab.report": 4,
    "defectlab.stage_bars": 4,
    "defectlab.pictures": 4,
    "defectlab.explain": 4,
    "defectlab.figures": 4,
    "defectlab.segmentation_figures": 4,
    "defectlab.curves": 4,
    "defectlab.convert": 4,
    "defectlab.experiment": 5,
    "defectlab.many": 5,
    "defectlab.categories": 5,
    "defectlab.sweeps": 6,
    "defectlab.demo": 7,
    "defectlab.cli": 7,
    "defectlab.__main__": 7,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def layer_of(module: str) -> int:
    best = max((name for name in LAYERS if module == name or module.startswith(f"{name}.")), key=len, default=None)
    assert best is not None, f"{module} has no layer: add it to LAYERS"
    return LAYERS[best]


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} if node.module != "defectlab" else {f"defectlab.{a.name}" for a in node.names}
    return found


@pytest.mark.parametrize("file", [f for f in FILES if f != PACKAGE / "__init__.py"], ids=module_of)
def test_a_module_imports_only_downwards(file: Path):
    own = layer_of(module_of(file))
    upwards = {
        name
        for name in imports_of(file)
        if name.startswith("defectlab.") and name != "defectlab.__version__" and layer_of(name) > own
    }
    assert not upwards


@pytest.mark.parametrize("package", ["results", "evaluation"])
def test_reading_records_never_imports_models(package: str):
    for file in (PACKAGE / package).glob("*.py"):
        assert not {n for n in imports_of(file) if n.startswith(("defectlab.models", "torch", "anomalib", "lightning"))}


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
    code = f"import sys, defectlab, defectlab.results.record, defectlab.experiment; print({HEAVY})"
    assert run_python(code).strip() == "[]"


def test_every_public_name_exists():
    for name in defectlab._DOOR.values():
        assert (PACKAGE.parent / name.replace(".", "/")).with_suffix(".py").is_file() or (
            PACKAGE.parent / name.replace(".", "/") / "__init__.py"
        ).is_file()
