"""What starts without torch, what the package's door offers, that contracts can break, and where tests lie."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import defectlab
import defectlab_runtime

PACKAGE = Path(defectlab.__file__).parent
RUNTIME = Path(defectlab_runtime.__file__).parent
ROOT = Path(__file__).parents[1]


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


HEAVY = "[m for m in 'torch anomalib lightning torchvision timm pandas matplotlib scipy'.split() if m in sys.modules]"


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


@pytest.mark.parametrize(
    "modules",
    [
        "defectlab.inference.threshold, defectlab.visualization.terminal",  # threshold
        "defectlab.results.workbook, defectlab.results.run.rerun",  # compare
        "defectlab.results.comparison.paired_test, defectlab.visualization.markdown",
        "defectlab.visualization.report, defectlab.visualization.result_files, defectlab.visualization.segmentation",
    ],
)
def test_commands_that_read_records_load_no_torch_and_none_of_the_slow_parts_of_scipy(modules: str):
    slow = HEAVY.replace(" scipy'", " scipy.stats scipy.optimize scipy.spatial'")
    assert run_python(f"import sys, {modules}; print({slow})").strip() == "[]"


@pytest.mark.parametrize("name", defectlab.__all__)
def test_every_public_name_can_be_imported(name: str):
    assert getattr(defectlab, name) is not None


def test_the_table_of_public_names_is_what_type_checkers_read():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    read = {name.name: one.module for one in typed.body if isinstance(one, ast.ImportFrom) for name in one.names}
    assert read == defectlab._DOOR
    assert {*defectlab._DOOR, "__version__"} == set(defectlab.__all__)
    assert len(defectlab.__all__) == len(set(defectlab.__all__))


OFFENCES = {
    "defectlab/results/workbook/cells.py": "import torch",
    "defectlab/data/manifest/masks.py": "def late():\n    from defectlab.cli.main import main",
    "defectlab/utils/files.py": "def late():\n    import defectlab.utils.config_files",
    "defectlab_runtime/description.py": "def late():\n    from defectlab.utils import files",
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Hold the contracts to a copy of the packages in this folder."""
    script = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports as main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)


def test_an_offending_import_in_any_folder_breaks_its_contract(tmp_path: Path):
    for package in (PACKAGE, RUNTIME):
        left_out = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(package, tmp_path / package.name, ignore=left_out)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    before = lint_imports(tmp_path)
    assert before.returncode == 0, before.stdout + before.stderr
    for file, line in OFFENCES.items():
        with (tmp_path / file).open("a", encoding="utf-8") as source:
            source.write(f"\n{line}\n")
    after = lint_imports(tmp_path)
    assert after.returncode == 1
    printed = " ".join(after.stdout.split())
    assert "defectlab.results.workbook.cells -> torch" in printed
    assert "defectlab.data.manifest.masks -> defectlab.cli.main" in printed
    assert "defectlab_runtime.description -> defectlab.utils" in printed
    assert "0 kept, 4 broken" in printed


def test_the_map_of_packages_is_the_contract():
    """CONTRIBUTING's table has the contract's packages in its order, a row for each, and none besides."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (one["layers"] for one in contracts if one["id"] == "layers")
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Where code goes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| `([\w.]+)/?` \|", section, re.MULTILINE)
    expected = [(str(floor), name) for floor, layer in enumerate(reversed(layers)) for name in layer.split(" | ")]
    assert [(floor, name.removesuffix(".py")) for floor, name in rows] == expected
    inside = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert inside - {"__init__", "__pycache__"} == {name for _, name in expected}


# tests of what several modules do together, by their place under tests/
WORKFLOWS = {
    "tests/data/download/test_download_killed.py",
    "tests/models/test_anomaly_dino.py",
    "tests/models/test_contract.py",
    "tests/sweeps/test_sweep_killed.py",
    "tests/sweeps/test_sweep_trackers.py",
    "tests/sweeps/test_two_sweeps.py",
}


def test_tests_mirror_the_package():
    """A module, or a folder, has its tests at the same place below `tests/`, in a file named `test_` and its name."""
    tests = ROOT / "tests"
    elsewhere = set()
    packages = {folder.name: folder for folder in PACKAGE.iterdir() if folder.is_dir()} | {"runtime": RUNTIME}
    for name, package in packages.items():
        for file in (tests / name).rglob("test_*.py"):
            place = file.relative_to(tests)
            tested = package / file.relative_to(tests / name).with_name(file.stem.removeprefix("test_"))
            if not (tested.is_dir() or tested.with_suffix(".py").is_file()):
                elsewhere.add(f"tests/{place.as_posix()}")
    assert elsewhere == WORKFLOWS
